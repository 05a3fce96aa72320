"""Our metrics are torchmetrics'."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
)

from workers.training.metrics import class_metrics


@pytest.mark.parametrize(("count", "classes", "seed"), [(500, 10, 0), (300, 100, 1), (64, 2, 2), (1, 5, 3)])
def test_they_agree_with_torchmetrics(count: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator) * 3
    labels = torch.randint(0, max(1, classes - 1), (count,), generator=generator)  # one class never occurs
    ours = class_metrics(logits, labels)
    f1 = multiclass_f1_score(logits, labels, classes, average="macro").item()
    error = multiclass_calibration_error(logits.softmax(1), labels, classes, n_bins=15).item()
    assert ours.macro_f1 == pytest.approx(f1, abs=1e-5)
    assert ours.calibration_error == pytest.approx(error, abs=1e-5)
    recalls = multiclass_accuracy(logits, labels, classes, average=None)
    assert ours.balanced_accuracy == pytest.approx(recalls[labels.unique()].mean().item(), abs=1e-5)


def test_the_extremes() -> None:
    labels = torch.arange(4)
    sure = class_metrics(torch.eye(4) * 100, labels)
    assert (sure.balanced_accuracy, sure.macro_f1) == (1.0, 1.0)
    assert sure.calibration_error == pytest.approx(0, abs=1e-6)
    wrong = class_metrics(torch.eye(4).roll(1, 0) * 100, labels)
    assert (wrong.balanced_accuracy, wrong.macro_f1) == (0.0, 0.0)
    assert wrong.calibration_error == pytest.approx(1, abs=1e-6)
