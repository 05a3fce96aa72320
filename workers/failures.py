"""Failures of trials by class: what a retry may cure, and what not."""

from __future__ import annotations

import torch

from workers.datasets import DatasetError
from workers.orders import FailureKind
from workers.training.errors import DivergedError, WeightsError


def kind_of(error: Exception) -> FailureKind:
    """The class of a failure inside a trial process."""
    match error:
        case DivergedError():
            return "nan_loss"
        case torch.OutOfMemoryError() | MemoryError():
            return "out_of_memory"
        case DatasetError():
            return "dataset"
        case WeightsError():
            return "weights"
        case _:
            return "error"
