"""Several processes that train one network together (DistributedDataParallel), each a share of every batch.

All members draw the same order, the same augmentation and the same initial weights from the trial's seed, and each
computes its slice of the batch. Their gradients add up to those of the whole batch, whatever the slices' sizes and the
classes' weights. Batch norms take their statistics over the whole batch. So a trial comes out the same within rounding,
however many processes train it; only mixup and CutMix pair images within a slice.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import TCPStore
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

JOIN_SECONDS = 120.0
"""How long members wait for each other to join."""
SILENT_SECONDS = 1800.0
"""How long a member waits for the others in the middle of an epoch, such as for images that only they have to read."""


class Team:
    """A member's view of its team. rank: from 0; size: 1 for who trains alone, where nothing here does anything."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    def share(self, count: int) -> slice:
        """This member's part of a batch of `count` images; the first ones get one more where it does not divide."""
        least, more = divmod(count, self.size)
        start = self.rank * least + min(self.rank, more)
        return slice(start, start + least + (self.rank < more))

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all members, which all must ask for."""
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total

    def together(self, network: nn.Module) -> nn.Module:
        """The network as it is to be called in training: the gradients of all members are averaged in its backward
        pass. To be asked for anew when parameters begin or cease to learn."""
        if self.size == 1:
            return network
        # statistics are equal already: see `sync_norms`
        return DistributedDataParallel(network, broadcast_buffers=False)

    def leave(self) -> None:
        """Ends the membership; the others' calls fail from now on."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


ALONE = Team()


def host_team(size: int, device: str, host: str = "127.0.0.1") -> tuple[int, Callable[[], Team]]:
    """For the first member: a free port of `host` for the others, and what joins as rank 0 and waits for them."""
    store = TCPStore(host, 0, size, is_master=True, wait_for_workers=False, timeout=_seconds(JOIN_SECONDS))
    return store.port, lambda: _joined(store, 0, size, device)


def join_team(host: str, port: int, rank: int, size: int, device: str) -> Team:
    """For the others. device: as torch names it: NCCL connects GPUs, gloo processors."""
    store = TCPStore(host, port, size, is_master=False, timeout=_seconds(JOIN_SECONDS))
    return _joined(store, rank, size, device)


def _joined(store: Any, rank: int, size: int, device: str) -> Team:
    if dist.is_initialized():
        dist.destroy_process_group()  # of a trial before
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_seconds(SILENT_SECONDS))
    team = Team(rank, size)
    team.sum(torch.zeros(1, device=device))  # everybody is there, and the connections work
    return team


def _seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def sync_norms(network: nn.Module) -> None:
    """Has batch norms take their statistics over all members' images. Their state and its names stay as they are."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.alone = type(module)  # type: ignore[assignment]
            module.__class__ = nn.SyncBatchNorm if next(module.parameters()).is_cuda else _SyncedOnProcessors
            module.process_group = None  # type: ignore[assignment]


def unsync_norms(network: nn.Module) -> nn.Module:
    """The same network, its batch norms as they were before `sync_norms`."""
    for module in network.modules():
        if isinstance(module, _BatchNorm) and hasattr(module, "alone"):
            module.__class__ = module.alone  # type: ignore[assignment]
    return network


def _sum(value: Tensor) -> Tensor:
    """Over all members, with gradients."""
    total: Tensor = all_reduce(value)  # type: ignore[no-untyped-call]
    return total


class _SyncedOnProcessors(_BatchNorm):
    """torch's SyncBatchNorm takes no processors. Two passes over the images, the mean before the variance, so that no
    digits are lost."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any: whoever was synchronised has been built for it."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        across = [0, *range(2, input.ndim)]
        shape = [1, -1, *([1] * (input.ndim - 2))]
        values = input.float()
        number = _sum(torch.tensor(float(values.numel() // values.shape[1])))
        mean = _sum(values.sum(across)) / number
        centred = values - mean.view(shape)
        variance = _sum(centred.square().sum(across)) / number
        self._follow(mean.detach(), variance.detach(), float(number))
        normed = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normed = normed * self.weight.view(shape) + self.bias.view(shape)
        answer: Tensor = normed.to(input.dtype)
        return answer

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, number: float) -> None:
        """Moves the running statistics, of which the variance is the unbiased one."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (number / max(1.0, number - 1)), momentum)
