"""The inner loops: batches are slices of one permuted tensor on the device, and no step waits for the device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.recipes import Recipe
from workers.datasets.loading import Splits, TensorSplit
from workers.training.augment import augmented
from workers.training.averaging import MovingAverage
from workers.training.metrics import ClassMetrics, class_metrics
from workers.training.mixing import Mixer
from workers.training.optimizers import set_rate

EVAL_BATCH = 512
CHECK_STEPS = 100
"""Steps between two looks at the loss: each waits for the device."""


@dataclass(frozen=True)
class Judged:
    """Mean cross entropy in nats, the fractions of images with the label among the first 1 and 5 guesses, and what is
    known per class."""

    loss: float
    top1: float
    top5: float
    classes: ClassMetrics


class Images:
    """Turns uint8 images into what the network takes: scaled by the training split's statistics, channels last."""

    def __init__(self, splits: Splits) -> None:
        self._scale = 1 / splits.std
        self._offset = -splits.mean / splits.std

    def __call__(self, images: Tensor) -> Tensor:
        scaled = torch.addcmul(self._offset, images.to(torch.float32), self._scale)
        return scaled.contiguous(memory_format=torch.channels_last)


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[object]:
    """bf16 autocast if the recipe asks for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")


def epoch_batches(split: TensorSplit, recipe: Recipe, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of uint8 images and labels in a random order; what does not fill a batch is left out this time."""
    size = batch_size(split, recipe)
    order = torch.randperm(len(split), generator=generator)[: steps_per_epoch(split, recipe) * size]
    order = order.to(split.images.device)
    images, labels = split.images[order], split.labels[order]
    return _slices(augmented(images, recipe, generator), labels, size)


def _slices(images: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(labels), size):
        yield images[start : start + size], labels[start : start + size]


def batch_size(split: TensorSplit, recipe: Recipe) -> int:
    return min(recipe.batch_size, len(split))


def steps_per_epoch(split: TensorSplit, recipe: Recipe) -> int:
    return len(split) // batch_size(split, recipe)


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """What each class counts in the loss so that all count the same: N / (classes × images of the class); 0 for a
    class without images. labels: N, int64."""
    counts = torch.bincount(labels, minlength=classes)
    return torch.where(counts > 0, len(labels) / (classes * counts.clamp_min(1)), 0.0).float()


@dataclass
class Trainer:
    """What one step needs. mixer: mixes images and labels of a batch. class_weights: of the loss, one per class.
    average: follows the weights. resting: modules that stay in eval mode."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    prepare: Images
    recipe: Recipe
    mixer: Mixer | None = None
    class_weights: Tensor | None = None
    average: MovingAverage | None = None
    resting: Sequence[nn.Module] = ()

    def epoch(self, batches: Iterable[tuple[Tensor, Tensor]], rates: Sequence[float]) -> float:
        """One pass, one learning rate per step; the mean loss. NaN or infinite if any step's was: then the pass ends
        at the next check, as nothing can be learnt any more."""
        self.network.train()
        for module in self.resting:
            module.eval()
        total = torch.zeros((), device=next(self.network.parameters()).device)
        for step, ((images, labels), rate) in enumerate(zip(batches, rates, strict=True), start=1):
            set_rate(self.optimizer, rate)
            total += self._step(images, labels)
            if step % CHECK_STEPS == 0 and not math.isfinite(total.item()):
                break
        return total.item() / len(rates)

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One update; the loss before it, detached."""
        inputs = self.prepare(images)
        if self.mixer is not None:
            inputs, labels = self.mixer(inputs, labels)
        with autocast(self.recipe, inputs.device):
            logits = self.network(inputs)
        smoothing = self.recipe.label_smoothing
        loss = F.cross_entropy(logits.float(), labels, weight=self.class_weights, label_smoothing=smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network)
        return loss.detach()


@torch.inference_mode()
def judge(network: nn.Module, split: TensorSplit, prepare: Images, recipe: Recipe) -> Judged:
    """Loss and accuracies in eval mode."""
    network.eval()
    batches = []
    for images, _ in _slices(split.images, split.labels, EVAL_BATCH):
        with autocast(recipe, split.images.device):
            batches.append(network(prepare(images)).float())
    logits = torch.cat(batches)
    loss, top1, top5 = (_sums(logits, split.labels) / len(split)).tolist()
    return Judged(loss, top1, top5, class_metrics(logits, split.labels))


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed loss, hits at 1 and hits at 5 (float64, 3 values)."""
    loss = F.cross_entropy(logits, labels, reduction="none").double().sum()
    guesses = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = guesses == labels[:, None]
    return torch.stack([loss, hits[:, 0].sum().double(), hits.sum().double()])
