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
from workers.training.teams import ALONE, Team

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
    doubles when memory runs out and the recipe accumulates. executor: decides how steps are computed; None: eagerly.
    team: who shares each batch; the whole of it comes to every member. forward: what is called in training instead of
    the network."""

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
    team: Team = ALONE
    forward: nn.Module | None = None

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
            if step % CHECK_STEPS == 0 and not math.isfinite(self.team.sum(total).item()):
                break
        return self.team.sum(total).item() / len(rates)

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One update; the loss before it (this member's part of it), detached."""
        whole = None
        if self.team.size > 1:
            whole = len(labels) if self.mixer is not None else self._weight(labels)
            mine = self.team.share(len(labels))
            images, labels = images[mine], labels[mine]
        inputs = self.prepare(images)
        if self.mixer is not None:
            inputs, labels = self.mixer(inputs, labels)
        while True:
            try:
                loss = self._gradients(inputs, labels, whole)
                break
            except torch.OutOfMemoryError:
                eagerly = self.executor is not None and self.executor.give_up("Memory ran out.")
                halved = self.recipe.accumulate and self.parts * 2 <= len(inputs) and self.team.size == 1
                if not eagerly and not halved:
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

    def _gradients(self, inputs: Tensor, labels: Tensor, whole: Tensor | int | None = None) -> Tensor:
        """The gradients of the whole batch, computed in `parts`; its loss, detached. whole: what the mean over the
        whole batch divides by, of which these images are a team member's share; the loss is then its part of it."""
        self.optimizer.zero_grad(set_to_none=True)
        if whole is not None:
            loss = self._loss(inputs, labels) * (self._weight(labels) / whole)
            (loss * self.team.size).backward()  # type: ignore[no-untyped-call]  # members' gradients are averaged
            return loss.detach()
        if self.parts == 1:
            loss = self._loss(inputs, labels)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()
        divisor, total = self._weight(labels), torch.zeros((), device=inputs.device)
        for some, their in zip(inputs.tensor_split(self.parts), labels.tensor_split(self.parts), strict=True):
            loss = self._loss(some, their) * (self._weight(their) / divisor)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        with autocast(self.recipe, inputs.device):
            logits = self._forward(inputs)
        smoothing = self.recipe.label_smoothing
        return F.cross_entropy(logits.float(), labels, weight=self.class_weights, label_smoothing=smoothing)

    def _forward(self, inputs: Tensor) -> Tensor:
        if self.forward is not None:
            answer: Tensor = self.forward(inputs)
        else:
            answer = self.network(inputs) if self.executor is None else self.executor.forward(inputs)
        return answer

    def _weight(self, labels: Tensor) -> Tensor | int:
        """What the mean over these labels divides by: their classes' weights, or (mixed ones) their number."""
        if self.class_weights is None or labels.is_floating_point():
            return len(labels)
        return self.class_weights[labels].sum()


@torch.inference_mode()
def judge(network: nn.Module, batches: Iterable[Batch], prepare: Images, recipe: Recipe, team: Team = ALONE) -> Judged:
    """Loss and accuracies in eval mode, of all images in `batches` together, which a team shares among its members."""
    network.eval()
    guessed, known = [], []
    for images, labels in batches:
        mine = team.share(len(labels))
        with autocast(recipe, images.device):
            found = network(prepare(images[mine])).float()
        if team.size > 1:  # each member fills in its rows, and their sum is all of them
            rows = found.new_zeros(len(labels), found.shape[1])
            rows[mine] = found
            found = rows
        guessed.append(found)
        known.append(labels)
    logits, truth = team.sum(torch.cat(guessed)), torch.cat(known)
    loss, top1, top5 = (_sums(logits, truth) / len(truth)).tolist()
    return Judged(loss, top1, top5, class_metrics(logits, truth))


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed loss, hits at 1 and hits at 5 (float64, 3 values)."""
    loss = F.cross_entropy(logits, labels, reduction="none").double().sum()
    guesses = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = guesses == labels[:, None]
    return torch.stack([loss, hits[:, 0].sum().double(), hits.sum().double()])
