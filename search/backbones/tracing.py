"""Finds stages, blocks and positions in a network that attune did not write, by running it on the meta device.

Blocks are found by module path: the outermost modules of at least two weight layers, one of them a convolution,
that turn one map into one map and are not themselves a chain of such modules of one class. Stages are runs of
blocks of one resolution, each reading the output of the one before. Where a block has exactly one addition whose
deeper operand comes out of a module, that module's output is the branch (`residual`). Whatever breaks these
rules is an error and not a guess.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn

from search.errors import SpecError
from search.sites import Shape

ADDITIONS = frozenset({operator.add, operator.iadd, torch.add, "add", "add_"})
FAILURES = (
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    IndexError,
    KeyError,
)
"""What running or tracing foreign code raises."""


@dataclass(frozen=True)
class Call:
    """One call of a module: what went in and came out, if each was a single tensor.

    Versions count the in-place changes that a tensor had seen by then.
    """

    order: int
    given: Tensor | None
    given_version: int
    made: Tensor | None
    made_version: int

    @property
    def maps(self) -> bool:
        """From one N × C × H × W to one N × C' × H' × W'."""
        return self.given is not None and self.made is not None and self.given.ndim == self.made.ndim == 4

    def reads(self, previous: Call) -> bool:
        """Whether its input is the output of `previous` as it was made."""
        return self.given is not None and self.given is previous.made and self.given_version == previous.made_version


@dataclass(frozen=True)
class TracedBlock:
    """Paths in the network: of the block, of the module whose output is its branch, of its replaceable convolutions."""

    path: str
    residual: str | None
    convs: tuple[str, ...]


Structure = tuple[tuple[TracedBlock, ...], ...]
"""The blocks of each stage."""
Calls = dict[str, list[Call]]


def fail(name: str, message: str) -> SpecError:
    return SpecError.one("backbone.name", f"{name!r} cannot be searched: {message}")


def observe(network: nn.Module, image: Shape) -> Calls:
    """Every module's calls in one forward pass in eval mode, by path; `network` must be on the meta device.

    Tensors are kept, so that identity tells whether one module's output is another's input.
    """
    calls: Calls = {}
    order = count()
    started: list[tuple[int, Tensor | None, int]] = []
    handles = []
    for path, module in network.named_modules():

        def before(_: nn.Module, inputs: Any, options: Any) -> None:
            given = inputs[0] if len(inputs) == 1 and not options and isinstance(inputs[0], Tensor) else None
            started.append((next(order), given, 0 if given is None else given._version))

        def after(_: nn.Module, inputs: Any, options: Any, output: Any, path: str = path) -> None:
            made = output if isinstance(output, Tensor) else None
            version = 0 if made is None else made._version
            calls.setdefault(path, []).append(Call(*started.pop(), made, version))

        handles += [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after, with_kwargs=True),
        ]
    try:
        with torch.no_grad():
            network.eval()(torch.empty(2, *image, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
    return calls


def find_structure(name: str, network: nn.Module, image: Shape) -> Structure:
    """The stages and blocks of `network` (on the meta device); SpecError with what was not understood."""
    try:
        calls = observe(network, image)
    except FAILURES as error:
        raise fail(name, f"it does not run on an image of {image}: {error}") from error
    blocks = sorted(_Finder(network, calls).blocks(), key=lambda path: calls[path][0].order)
    if len(blocks) < 2:
        raise fail(name, "no blocks of convolutions were found in it.")
    stages: list[list[str]] = [[blocks[0]]]
    for previous, path in pairwise(blocks):
        last, call = _only(calls, previous), _only(calls, path)
        size, next_size = _made(last)[2:], _made(call)[2:]
        if any(b > a for a, b in zip(size, next_size, strict=True)):
            raise fail(name, f"the resolution grows from {previous} to {path}, and only narrowing is understood.")
        if next_size != size:
            stages.append([])
        elif not call.reads(last):
            raise fail(name, f"{path} has the resolution of {previous} and does not read its output.")
        stages[-1].append(path)
    return tuple(tuple(_block(network, calls, path) for path in stage) for stage in stages)


class _Finder:
    """Walks the module tree; see the rules in the module's docstring."""

    def __init__(self, network: nn.Module, calls: Calls) -> None:
        self.modules = dict(network.named_modules())
        self.calls = calls
        self.candidates = [path for path, module in self.modules.items() if path and self._is_candidate(path, module)]
        self.stage_classes = {type(self.modules[path]) for path in self.candidates if self._is_chain(path)}

    def blocks(self, path: str = "") -> Iterator[str]:
        for name, child in self.modules[path].named_children():
            below = f"{path}.{name}" if path else name
            if below in self.candidates and type(child) not in self.stage_classes:
                yield below
            else:
                yield from self.blocks(below)

    def _is_candidate(self, path: str, module: nn.Module) -> bool:
        if type(module) in (nn.Sequential, nn.ModuleList, nn.ModuleDict):
            return False
        made = self.calls.get(path, [])
        return (
            len(made) == 1
            and made[0].maps
            and weight_layers(module) > 1
            and any(isinstance(part, nn.Conv2d) for part in module.modules())
        )

    def _is_chain(self, path: str) -> bool:
        """Whether several candidates of one class, one after the other, end with what the module at `path` returns."""
        inner = [other for other in self.candidates if other.startswith(f"{path}.")]
        outer = [other for other in inner if not any(other.startswith(f"{one}.") for one in inner)]
        classes: dict[type[nn.Module], list[Call]] = {}
        for other in outer:
            classes.setdefault(type(self.modules[other]), []).append(_only(self.calls, other))
        whole = _only(self.calls, path)
        for calls in classes.values():
            chain = sorted(calls, key=lambda call: call.order)
            ends = chain[-1].made is whole.made and chain[-1].made_version == whole.made_version
            if len(chain) > 1 and ends and all(later.reads(earlier) for earlier, later in pairwise(chain)):
                return True
        return False


def weight_layers(module: nn.Module) -> int:
    return sum(isinstance(part, nn.Conv2d | nn.Linear) for part in module.modules())


def _only(calls: Calls, path: str) -> Call:
    (call,) = calls[path]
    return call


def _made(call: Call) -> torch.Size:
    assert call.made is not None
    return call.made.shape


def _block(network: nn.Module, calls: Calls, path: str) -> TracedBlock:
    block = network.get_submodule(path)
    convs = (f"{path}.{name}" for name, part in block.named_modules() if is_spatial(part))
    branch = branch_output(block)
    residual = None
    if branch is not None:
        where = f"{path}.{branch}"
        made = calls.get(where, [])
        if len(made) == 1 and made[0].maps and _made(made[0]) == _made(_only(calls, path)):
            residual = where
    return TracedBlock(path, residual, tuple(conv for conv in convs if len(calls.get(conv, [])) == 1))


def is_spatial(module: nn.Module) -> bool:
    """Whether `module` is a convolution over space that ConvGeometry describes; depthwise ones are left out."""
    if type(module) is not nn.Conv2d or isinstance(module.padding, str) or module.padding_mode != "zeros":
        return False
    pairs = (module.kernel_size, module.stride, module.padding, module.dilation)
    return (
        all(pair[0] == pair[1] for pair in pairs)
        and module.kernel_size[0] > 1
        and module.groups * 2 <= max(2, module.in_channels)
    )


class _Shallow(fx.Tracer):
    """Traces what a block itself does; what it is made of stays closed."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return True


def branch_output(block: nn.Module) -> str | None:
    """The module whose output is the branch of a residual block, below it; None if that cannot be told."""
    try:
        graph = _Shallow().trace(block)
    except (fx.proxy.TraceError, *FAILURES):
        return None
    sums = [node for node in graph.nodes if node.target in ADDITIONS]
    if len(sums) != 1 or len(sums[0].all_input_nodes) != 2:
        return None
    first, second = sums[0].all_input_nodes
    depths = _depth(block, first), _depth(block, second)
    if depths[0] == depths[1]:
        return None
    return _module_behind(block, first if depths[0] > depths[1] else second)


def _depth(block: nn.Module, node: fx.Node) -> int:
    """Weight layers in everything that `node` comes from."""
    seen, waiting, layers = {node}, [node], 0
    while waiting:
        current = waiting.pop()
        if current.op == "call_module":
            layers += weight_layers(block.get_submodule(str(current.target)))
        fresh = [other for other in current.all_input_nodes if other not in seen]
        seen.update(fresh)
        waiting += fresh
    return layers


def _module_behind(block: nn.Module, node: fx.Node) -> str | None:
    """The module that made `node`, behind any without parameters (stochastic depth, dropout)."""
    while node.op == "call_module":
        module = block.get_submodule(str(node.target))
        if next(module.parameters(), None) is not None:
            return str(node.target) if len(node.users) == 1 else None
        if len(node.all_input_nodes) != 1:
            return None
        node = node.all_input_nodes[0]
    return None
