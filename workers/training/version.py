"""The version of everything that turns a request into a result."""

EVALUATION_VERSION = 1
"""Raised whenever training, evaluation or a data set's composition changes results: older ones are not reused."""
