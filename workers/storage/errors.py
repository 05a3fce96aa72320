"""What can go wrong with the store, in words for its operator."""

from __future__ import annotations


class StorageError(Exception):
    """The store cannot be reached, refuses a file, or is another one than it should be."""


class NotStored(StorageError):  # noqa: N818  (named for what happened)
    """There is no such file."""
