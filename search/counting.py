"""Counts one network by running it on the meta device, which computes shapes and no numbers (needs torch)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search.sites import Shape


def parameters(network: nn.Module) -> int:
    """Learned numbers; shared ones count once."""
    return sum(parameter.numel() for parameter in network.parameters())


def macs(network: nn.Module, input_shape: Shape) -> int:
    """Multiply–adds of one forward pass on one image of C × H × W, in eval mode, wherever `network` is."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.eval()(torch.empty(1, *input_shape, device=_device(network)))
    return int(counter.get_total_flops()) // 2


def activation_bytes(network: nn.Module, input_shape: Shape) -> int:
    """Bytes that a forward pass in training keeps for the backward pass, for each image of a batch (float32).

    The slope between two batches, so what does not grow with the batch (parameters, statistics) is left out.
    The input counts if it is kept.
    """
    small, large = (_saved(network, input_shape, batch) for batch in (2, 4))
    return (large - small) // 2


def on_meta(make: Callable[[], Any]) -> nn.Module:
    """What `make` builds, without memory for its parameters."""
    with torch.device("meta"):
        network = make()
    if not isinstance(network, nn.Module):
        raise TypeError(f"expected a torch module, not {type(network).__name__}")
    return network


def _saved(network: nn.Module, input_shape: Shape, batch: int) -> int:
    storages: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage  # kept alive, so that no other storage gets its number
        return tensor

    x = torch.empty(batch, *input_shape, device=_device(network), requires_grad=True)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network.train()(x)
    return sum(storage.nbytes() for storage in storages.values())


def _device(network: nn.Module) -> torch.device:
    parameter = next(network.parameters(), None)
    return torch.device("meta") if parameter is None else parameter.device
