"""Metrics of a classifier from its logits, beside the loss (torchmetrics is the tests' oracle; importing it would cost
every worker seconds)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15


@dataclass(frozen=True)
class ClassMetrics:
    """balanced_accuracy: the mean of the classes' recalls, over classes that occur. macro_f1: the mean of their F1,
    over classes that occur or are guessed. calibration_error: expected calibration error in 15 bins of equal width
    (C. Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3). All are fractions."""

    balanced_accuracy: float
    macro_f1: float
    calibration_error: float


def class_metrics(logits: Tensor, labels: Tensor) -> ClassMetrics:
    """logits: N × classes, float32. labels: N, int64."""
    classes = logits.shape[1]
    confidence, guess = logits.softmax(1).max(1)
    table = torch.bincount(labels * classes + guess, minlength=classes**2).view(classes, classes).double()
    hits, there, guessed = table.diagonal(), table.sum(1), table.sum(0)
    recall = (hits / there)[there > 0]
    f1 = (2 * hits / (there + guessed))[there + guessed > 0]
    return ClassMetrics(recall.mean().item(), f1.mean().item(), _calibration_error(confidence, guess == labels))


def _calibration_error(confidence: Tensor, correct: Tensor) -> float:
    """The gap between confidence and accuracy, averaged over the bins by their share of the images."""
    edges = torch.linspace(0, 1, BINS + 1, device=confidence.device)
    which = (torch.bucketize(confidence, edges, right=False) - 1).clamp(0, BINS - 1)
    gap = torch.zeros(BINS, dtype=torch.float64, device=confidence.device)
    gap.index_add_(0, which, confidence.double() - correct.double())
    return (gap.abs().sum() / len(confidence)).item()
