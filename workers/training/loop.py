"""The inner loops of training and judging; no step waits for the device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.recipes import Recipe
from workers.datasets.batches import Batch
from workers.datasets.loading import Splits, StreamedSplits
from workers.training.averaging import MovingAverage
from workers.training.execution import Executor
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

    def __init__(self, splits: Splits | StreamedSplits) -> None:
        self._scale = 1 / splits.std
        self._offset = -splits.mean / splits.std

    def __call__(self, images: Tensor) -> Tensor:
        scaled = torch.addcmul(self._offset, images.to(torch.float32), self._scale)
        return scaled.contiguous(memory_format=torch.channels_last)


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[object]:
    """bf16 autocast if the recipe asks for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")


@dataclass
class Trainer:
    """What one step needs. mixer: mixes images and labels of a batch. class_weights: of the loss, one per class.
    average: follows the weights. resting: modules that stay in eval mode. parts: in how many a batch is computed; it
    doubles when memory runs out and the recipe accumulates. executor: decides how steps are computed; None: eagerly."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    prepare: Images
    recipe: Recipe
    mixer: Mixer | None = None
    class_weights: Tensor | None = None
    average: MovingAverage | None = None
    resting: Sequence[nn.Module] = ()
    parts: int = 1
    executor: Executor | None = None

    def epoch(self, batches: Iterable[Batch], rates: Sequence[float]) -> float:
        """One pass, one learning rate per step; the mean loss. NaN or infinite if any step's was: then the pass ends
        at the next check, as nothing can be learnt any more."""
        self.network.train()
        for module in self.resting:
            module.eval()
        total = torch.zeros((), device=next(self.network.parameters()).device)
        for step, ((images, labels), rate) in enumerate(zip(batches, rates, strict=True), start=1):
            set_rate(self.optimizer, rate)
            if self.executor is None:
                total += self._step(images, labels)
            else:
                total += self.executor.step(partial(self._step, images, labels))
            if step % CHECK_STEPS == 0 and not math.isfinite(total.item()):
                break
        return total.item() / len(rates)

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One update; the loss before it, detached."""
        inputs = self.prepare(images)
        if self.mixer is not None:
            inputs, labels = self.mixer(inputs, labels)
        while True:
            try:
                loss = self._gradients(inputs, labels)
                break
            except torch.OutOfMemoryError:
                eagerly = self.executor is not None and self.executor.give_up("Memory ran out.")
                if not eagerly and (not self.recipe.accumulate or self.parts * 2 > len(inputs)):
                    raise
            # outside of the handler, whose traceback holds what the failed pass had made
            self.parts *= 1 if eagerly else 2
            self.optimizer.zero_grad(set_to_none=True)
            if inputs.is_cuda:
                torch.cuda.empty_cache()
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network)
        return loss

    def _gradients(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """The gradients of the whole batch, computed in `parts`; its loss, detached."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.parts == 1:
            loss = self._loss(inputs, labels)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()
        whole, total = self._weight(labels), torch.zeros((), device=inputs.device)
        for some, their in zip(inputs.tensor_split(self.parts), labels.tensor_split(self.parts), strict=True):
            loss = self._loss(some, their) * (self._weight(their) / whole)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        with autocast(self.recipe, inputs.device):
            logits = self.network(inputs) if self.executor is None else self.executor.forward(inputs)
        smoothing = self.recipe.label_smoothing
        return F.cross_entropy(logits.float(), labels, weight=self.class_weights, label_smoothing=smoothing)

    def _weight(self, labels: Tensor) -> Tensor | int:
        """What the mean over these labels divides by: their classes' weights, or (mixed ones) their number."""
        if self.class_weights is None or labels.is_floating_point():
            return len(labels)
        return self.class_weights[labels].sum()


@torch.inference_mode()
def judge(network: nn.Module, batches: Iterable[Batch], prepare: Images, recipe: Recipe) -> Judged:
    """Loss and accuracies in eval mode, of all images in `batches` together."""
    network.eval()
    guessed, known = [], []
    for images, labels in batches:
        with autocast(recipe, images.device):
            guessed.append(network(prepare(images)).float())
        known.append(labels)
    logits, truth = torch.cat(guessed), torch.cat(known)
    loss, top1, top5 = (_sums(logits, truth) / len(truth)).tolist()
    return Judged(loss, top1, top5, class_metrics(logits, truth))


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed loss, hits at 1 and hits at 5 (float64, 3 values)."""
    loss = F.cross_entropy(logits, labels, reduction="none").double().sum()
    guesses = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = guesses == labels[:, None]
    return torch.stack([loss, hits[:, 0].sum().double(), hits.sum().double()])
