"""Initial weights from the operator's folder, put into a backbone with attention in it.

A request names weights; the operator decides what there is: files NAME.safetensors, NAME.pth or NAME.pt in the
folder ATTUNE_WEIGHTS. Nothing is downloaded, no path comes from a request, and nothing is unpickled but tensors.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, load, nn

from search import counting
from search.architecture import Architecture, Task
from search.errors import SpecError, shown
from search.models import build

SUFFIXES = (".safetensors", ".pth", ".pt")
VARIABLE = "ATTUNE_WEIGHTS"


@dataclass(frozen=True)
class Loaded:
    """What did not come from the file, and what was not taken from it (parameter names).

    new: of the placed modules. head: of a classifier for another number of classes, left as it was drawn.
    unused: of convolutions that were replaced by modules of another shape.
    """

    new: tuple[str, ...]
    head: tuple[str, ...]
    unused: tuple[str, ...]


def weights_folder() -> Path | None:
    """The operator's folder, if there is one."""
    folder = os.environ.get(VARIABLE)
    return Path(folder) if folder else None


def registered(folder: Path | None) -> dict[str, Path]:
    """The weights that a request may name. Of two files of one name, which is meant cannot be told: ValueError."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder is not None else []:
        if path.suffix in SUFFIXES and path.is_file():
            if path.stem in found:
                raise ValueError(f"{found[path.stem].name} and {path.name} in {folder} have one name")
            found[path.stem] = path
    return found


def find_weights(name: str, folder: Path | None, field: str = "backbone.weights") -> Path:
    """The file of the weights called `name`; SpecError with the registered names otherwise."""
    known = registered(folder)
    if name not in known:
        where = "" if known else f" None are registered here: the operator sets {VARIABLE} to a folder of them."
        raise SpecError.one(field, f"There are no weights {shown(name)}.{where}", tuple(known))
    return known[name]


def fingerprint(path: Path) -> str:
    """SHA-256 (hex) of the file: two results share their initial weights when this agrees."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: Path, field: str = "backbone.weights") -> dict[str, Tensor]:
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
            raise SpecError.one(field, f"{path.stem} is not a safetensors file: {error}") from error
    try:
        data: Any = load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise SpecError.one(field, f"{path.stem} cannot be read as tensors only.") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(data, Mapping) and isinstance(data.get(wrapper), Mapping):
            data = data[wrapper]
    if not isinstance(data, Mapping) or not data or not all(isinstance(value, Tensor) for value in data.values()):
        raise SpecError.one(field, f"{path.stem} is not a state dict.")
    prefix = "module." if all(str(name).startswith("module.") for name in data) else ""
    return {str(name).removeprefix(prefix): value for name, value in data.items()}


def load_weights(network: nn.Module, architecture: Architecture, task: Task, state: Mapping[str, Tensor],
                 field: str = "backbone.weights") -> Loaded:
    """Puts the backbone's `state` into `network`, which `models.build` made of `architecture` and `task`.

    Everything of the backbone must be there, in its shape; only a classifier for another number of classes keeps
    its drawn weights. The placed modules keep theirs, so those that start as the identity change nothing.
    Raises SpecError with all names that do not fit.
    """
    base = Architecture.make(architecture.backbone, {})
    names = _shapes(base, task)
    resized = _shapes(base, Task(task.input_shape, task.classes + 1))
    state = {architecture.backbone.info.weight_name(name): value for name, value in state.items()}
    head = {name for name, shape in names.items() if resized[name] != shape}
    if all(name in state and state[name].shape == names[name] for name in head):
        head = set()
    own = {name: value.shape for name, value in network.state_dict().items()}
    replaced = {name for name in names if own.get(name) != names[name]}
    _check(names, head, state, field)
    taken = {name: value for name, value in state.items() if name not in head | replaced}
    missing, unexpected = network.load_state_dict(taken, strict=False)
    new = tuple(name for name in missing if name not in names or name in replaced)
    lost = [name for name in missing if name in names and name not in head | replaced and not _is_counter(name)]
    if unexpected or lost:
        raise AssertionError(f"names changed while loading: {unexpected + lost}")
    return Loaded(new, tuple(sorted(head)), tuple(sorted(replaced)))


def _check(names: Mapping[str, Any], head: set[str], state: Mapping[str, Tensor], field: str) -> None:
    """SpecError unless `state` is the backbone's, up to `head` and BatchNorm's counters, which old files lack."""
    wrong = [f"{name} is missing" for name in names if name not in state and name not in head and not _is_counter(name)]
    wrong += [f"{name} is {_size(state[name].shape)} and not {_size(shape)}" for name, shape in names.items()
              if name in state and name not in head and state[name].shape != shape]
    wrong += [f"{name} is not the backbone's" for name in state if name not in names]
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise SpecError.one(field, f"The weights are not of this backbone: {'; '.join(wrong[:5])}{more}.")


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _size(shape: Any) -> str:
    return " × ".join(map(str, shape)) or "a number"


def _shapes(architecture: Architecture, task: Task) -> dict[str, Any]:
    network = counting.on_meta(lambda: build(architecture, task))
    return {name: value.shape for name, value in network.state_dict().items()}
