"""Modules that take a convolution's place."""
