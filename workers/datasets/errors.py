"""What can be wrong with a data set, in words for the operator."""

from __future__ import annotations


class DatasetError(Exception):
    """A data set cannot be read on this machine; the message says which file is missing or broken."""


class NotReadYetError(DatasetError):
    """A data set is new or has changed, and whoever asks will not wait until it is read."""


class ChangedDataError(DatasetError):
    """The data are not those that the search was planned with: an import has come between."""


class UnreadableImageError(DatasetError):
    """One image file cannot be decoded. reason: why, without the file's name."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(path, reason)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"
