"""What can go wrong in training, in words that go into the trial's row."""

from __future__ import annotations


class TrainingError(Exception):
    """Training cannot go on."""


class DivergedError(TrainingError):
    """The loss became NaN or infinite."""

    def __init__(self, epoch: int, what: str) -> None:
        self.epoch = epoch
        super().__init__(f"Diverged in epoch {epoch}: the {what} is not finite.")


class WeightsError(TrainingError):
    """The weights to start from are not on this machine, are others than the search's, or do not fit."""


class StateError(TrainingError):
    """A checkpoint does not belong to this trial, or is damaged."""


class MemberError(TrainingError):
    """A process that trained a share of each batch has died."""
