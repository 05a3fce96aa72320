"""Initial weights put into a backbone with attention in it (torch). Nothing is unpickled but tensors."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, load, nn

from search import counting
from search.architecture import Architecture, Backbone, Task
from search.errors import SpecError
from search.models import build
from search.weights import FIELD, Weights, find_file, fingerprint


@dataclass(frozen=True)
class Loaded:
    """What did not come from the file, and what was not taken from it (parameter names).

    new: of the placed modules. head: of a classifier for another number of classes, left as it was drawn.
    unused: of convolutions that were replaced by modules of another shape.
    """

    new: tuple[str, ...]
    head: tuple[str, ...]
    unused: tuple[str, ...]


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in `path`, on the CPU; SpecError if it holds anything but tensors.

    One level of "state_dict" or "model" around it, and "module." before every name, as training scripts write
    them, are taken off.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise SpecError.one(FIELD, f"{path.stem} is not a safetensors file: {error}") from error
    try:
        data: Any = load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise SpecError.one(FIELD, f"{path.stem} cannot be read as tensors only.") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(data, Mapping) and isinstance(data.get(wrapper), Mapping):
            data = data[wrapper]
    if not isinstance(data, Mapping) or not data or not all(isinstance(value, Tensor) for value in data.values()):
        raise SpecError.one(FIELD, f"{path.stem} is not a state dict.")
    prefix = "module." if all(str(name).startswith("module.") for name in data) else ""
    return {str(name).removeprefix(prefix): value for name, value in data.items()}


def read_registered(weights: Weights, folder: Path | None) -> dict[str, Tensor]:
    """The state dict of registered weights; SpecError when the file is gone, or not the one that is meant."""
    try:
        path = find_file(weights.name, folder)
        if fingerprint(path) != weights.fingerprint:
            raise SpecError.one(FIELD, f"The file of the weights {weights.name!r} is another than the search's.")
        return read_weights(path)
    except OSError as error:
        raise SpecError.one(FIELD, f"The weights {weights.name!r} cannot be read: {error}") from error


def load_weights(network: nn.Module, architecture: Architecture, task: Task, state: Mapping[str, Tensor]) -> Loaded:
    """Puts the backbone's `state` into `network`, which `models.build` made of `architecture` and `task`.

    Everything of the backbone must be there, in its shape; only a classifier for another number of classes keeps
    its drawn weights. The placed modules keep theirs, so those that start as the identity change nothing.
    Raises SpecError with all names that do not fit.
    """
    fit = _fit(architecture.backbone, task, state)
    own = {name: value.shape for name, value in network.state_dict().items()}
    replaced = {name for name in fit.names if own.get(name) != fit.names[name]}
    taken = {name: value for name, value in fit.state.items() if name not in fit.head | replaced}
    missing, unexpected = network.load_state_dict(taken, strict=False)
    new = tuple(name for name in missing if name not in fit.names or name in replaced)
    lost = [name for name in missing if name in fit.names and name not in fit.head | replaced and not _is_counter(name)]
    if unexpected or lost:
        raise AssertionError(f"names changed while loading: {unexpected + lost}")
    return Loaded(new, tuple(sorted(fit.head)), tuple(sorted(replaced)))


def check_fit(backbone: Backbone, task: Task, state: Mapping[str, Tensor]) -> None:
    """SpecError with what keeps `state` from being the weights of `backbone`, whatever is placed in it."""
    _fit(backbone, task, state)


@dataclass(frozen=True)
class _Fit:
    """names: shapes of all that the backbone holds. head: names of a classifier for another number of classes.
    state: the weights, under the backbone's names."""

    names: Mapping[str, Any]
    head: frozenset[str]
    state: Mapping[str, Tensor]


def _fit(backbone: Backbone, task: Task, state: Mapping[str, Tensor]) -> _Fit:
    base = Architecture.make(backbone, {})
    names = _shapes(base, task)
    resized = _shapes(base, Task(task.input_shape, task.classes + 1))
    state = {backbone.info.weight_name(name): value for name, value in state.items()}
    head = {name for name, shape in names.items() if resized[name] != shape}
    if all(name in state and state[name].shape == names[name] for name in head):
        head = set()
    _check(names, head, state)
    return _Fit(names, frozenset(head), state)


def _check(names: Mapping[str, Any], head: set[str], state: Mapping[str, Tensor]) -> None:
    """SpecError unless `state` is the backbone's, up to `head` and BatchNorm's counters, which old files lack."""
    wrong = [f"{name} is missing" for name in names if name not in state and name not in head and not _is_counter(name)]
    wrong += [
        f"{name} is {_size(state[name].shape)} and not {_size(shape)}"
        for name, shape in names.items()
        if name in state and name not in head and state[name].shape != shape
    ]
    wrong += [f"{name} is not the backbone's" for name in state if name not in names]
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise SpecError.one(FIELD, f"The weights are not of this backbone: {'; '.join(wrong[:5])}{more}.")


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _size(shape: Any) -> str:
    return " × ".join(map(str, shape)) or "a number"


def _shapes(architecture: Architecture, task: Task) -> dict[str, Any]:
    network = counting.on_meta(lambda: build(architecture, task))
    return {name: value.shape for name, value in network.state_dict().items()}
