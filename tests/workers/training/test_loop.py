"""The parts of the loop against plain statements of what they should do."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.recipes import Recipe
from workers.datasets.batches import TensorBatches
from workers.datasets.loading import TensorSplit, load
from workers.training.loop import CHECK_STEPS, Images, Trainer, judge
from workers.training.mixing import mixer
from workers.training.optimizers import make_optimizer

CPU = torch.Generator().manual_seed(0)


def test_images_are_normalised_by_the_training_split() -> None:
    splits = load("digits")
    prepared = Images(splits)(splits.train.images)
    assert prepared.mean().item() == pytest.approx(0, abs=1e-5)
    assert prepared.std().item() == pytest.approx(1, abs=1e-3)
    assert prepared.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_is_a_plain_torch_loop(optimizer: str) -> None:
    splits = load("digits")
    recipe = Recipe.model_validate({"optimizer": optimizer, "lr": 0.01, "weight_decay": 0.01, "label_smoothing": 0.1})
    ours, theirs = (_linear(seed=3) for _ in range(2))
    rates = [0.01, 0.02, 0.005]
    batches = [(splits.train.images[i : i + 32], splits.train.labels[i : i + 32]) for i in (0, 32, 64)]
    prepare = Images(splits)
    loss = Trainer(ours, make_optimizer(ours, recipe), prepare, recipe).epoch(iter(batches), rates)
    assert loss == pytest.approx(_plain_loop(theirs, optimizer, batches, prepare, rates), rel=1e-5)
    for mine, plain in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, plain, atol=1e-6)


def _linear(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def _plain_loop(
    network: nn.Module, name: str, batches: list[tuple[Tensor, Tensor]], prepare: Images, rates: list[float]
) -> float:
    weight, bias = network.parameters()
    groups = [{"params": [weight], "weight_decay": 0.01}, {"params": [bias], "weight_decay": 0.0}]
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True)
        if name == "sgd"
        else torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.999))
    )
    losses = []
    for (images, labels), rate in zip(batches, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = F.cross_entropy(network(prepare(images)), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def test_judging_counts_hits() -> None:
    """A network that answers the image's own pixels as logits, against counting by hand."""
    count = 1000
    pixels = torch.randint(0, 256, (count, 1, 2, 4), dtype=torch.uint8, generator=CPU)
    labels = torch.randint(0, 8, (count,), generator=CPU)
    splits = load("digits")
    prepare = Images(splits)
    judged = judge(_Pixels(), TensorBatches(TensorSplit(pixels, labels), 300).epoch(1), prepare, Recipe())
    logits = prepare(pixels).flatten(1)
    # ties are broken by the order, as equal pixels are common in no more than a few images
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)
    assert judged.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert judged.top1 == pytest.approx((ranks < 1).double().mean().item(), abs=0.01)
    assert judged.top5 == pytest.approx((ranks < 5).double().mean().item(), abs=0.01)


class _Pixels(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def test_a_loss_that_is_not_finite_ends_the_pass() -> None:
    splits, recipe = load("digits"), Recipe()
    network = _linear(seed=0)
    with torch.no_grad():
        network[1].weight.fill_(float("inf"))
    seen = []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(1000):
            seen.append(step)
            yield splits.train.images[:8], splits.train.labels[:8]

    loss = Trainer(network, make_optimizer(network, recipe), Images(splits), recipe).epoch(batches(), [0.1] * 1000)
    assert not math.isfinite(loss)
    assert len(seen) == CHECK_STEPS


class Narrow(nn.Module):
    """A linear network on a device that has memory for `most` images at once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.inner = _linear(seed=3)
        self.most = most

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        answer: Tensor = self.inner(images)
        return answer


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_batch_that_does_not_fit_gives_the_gradients_of_the_whole(mixed: bool, weighted: bool) -> None:
    splits = load("digits")
    recipe = Recipe.model_validate({"lr": 0.1, "accumulate": True, "label_smoothing": 0.1, "mixup": 0.4 * mixed})
    weights = torch.linspace(0.2, 2, 10) if weighted else None
    batches = [(splits.train.images[i : i + 31], splits.train.labels[i : i + 31]) for i in (0, 31)]
    trainers = []
    for most in (1000, 8):
        network = Narrow(most)
        mix = mixer(recipe, 10) if mixed else None
        trainers.append(Trainer(network, make_optimizer(network, recipe), Images(splits), recipe, mix, weights))
    losses = []
    for trainer in trainers:
        torch.manual_seed(5)  # of the mixing
        losses.append(trainer.epoch(iter(batches), [0.1, 0.1]))
    whole, parts = trainers
    assert (whole.parts, parts.parts) == (1, 4)  # 31 images are 8 + 8 + 8 + 7
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for mine, other in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6)


def test_without_leave_to_accumulate_memory_that_runs_out_fails_the_trial() -> None:
    splits, network = load("digits"), Narrow(8)
    trainer = Trainer(network, make_optimizer(network, Recipe()), Images(splits), Recipe())
    with pytest.raises(torch.OutOfMemoryError):
        trainer.epoch(iter([(splits.train.images[:31], splits.train.labels[:31])]), [0.1])
    one = Narrow(0)
    allowed = Recipe(accumulate=True)
    trainer = Trainer(one, make_optimizer(one, allowed), Images(splits), allowed)
    with pytest.raises(torch.OutOfMemoryError):  # not even one image fits
        trainer.epoch(iter([(splits.train.images[:31], splits.train.labels[:31])]), [0.1])
