"""The inner loops: batches are slices of one permuted tensor on the device, and no step waits for the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.recipes import Recipe
from workers.datasets.loading import Splits, TensorSplit
from workers.training.augment import shift

EVAL_BATCH = 512


@dataclass(frozen=True)
class Judged:
    """Mean cross entropy in nats, and the fractions of images with the label among the first 1 and 5 guesses."""

    loss: float
    top1: float
    top5: float


class Images:
    """Turns uint8 images into what the network takes: scaled by the training split's statistics, channels last."""

    def __init__(self, splits: Splits) -> None:
        self._scale = 1 / splits.std
        self._offset = -splits.mean / splits.std

    def __call__(self, images: Tensor) -> Tensor:
        scaled = torch.addcmul(self._offset, images.to(torch.float32), self._scale)
        return scaled.contiguous(memory_format=torch.channels_last)


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser; biases, norms and other vectors or scalars are not decayed."""
    decayed = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=True)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[object]:
    """bf16 autocast if the recipe asks for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")


def epoch_batches(split: TensorSplit, recipe: Recipe, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of uint8 images and labels in a random order; what does not fill a batch is left out this time."""
    size = batch_size(split, recipe)
    order = torch.randperm(len(split), generator=generator)[: steps_per_epoch(split, recipe) * size]
    order = order.to(split.images.device)
    images, labels = split.images[order], split.labels[order]
    if recipe.augment == "shift":
        images = shift(images, recipe.shift_pixels, generator)
    return _slices(images, labels, size)


def _slices(images: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(labels), size):
        yield images[start : start + size], labels[start : start + size]


def batch_size(split: TensorSplit, recipe: Recipe) -> int:
    return min(recipe.batch_size, len(split))


def steps_per_epoch(split: TensorSplit, recipe: Recipe) -> int:
    return len(split) // batch_size(split, recipe)


def train_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[tuple[Tensor, Tensor]],
    prepare: Images,
    rates: Sequence[float],
    recipe: Recipe,
) -> float:
    """One pass, one learning rate per step; the mean loss, NaN or infinite if any step's was."""
    network.train()
    device = next(network.parameters()).device
    total = torch.zeros((), device=device)
    for (images, labels), rate in zip(batches, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        with autocast(recipe, device):
            logits = network(prepare(images))
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach()
    return total.item() / len(rates)


@torch.inference_mode()
def judge(network: nn.Module, split: TensorSplit, prepare: Images, recipe: Recipe) -> Judged:
    """Loss and accuracy in eval mode."""
    network.eval()
    device = split.images.device
    sums = torch.zeros(3, device=device, dtype=torch.float64)
    for images, labels in _slices(split.images, split.labels, EVAL_BATCH):
        with autocast(recipe, device):
            logits = network(prepare(images))
        sums += _batch_sums(logits.float(), labels)
    loss, top1, top5 = (sums / len(split)).tolist()
    return Judged(loss, top1, top5)


def _batch_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed loss, hits at 1 and hits at 5 (float64, 3 values)."""
    loss = F.cross_entropy(logits, labels, reduction="sum")
    guesses = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = guesses == labels[:, None]
    return torch.stack([loss.double(), hits[:, 0].sum().double(), hits.sum().double()])
