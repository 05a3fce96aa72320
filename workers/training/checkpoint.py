"""A session's state as one safetensors file and back: no pickle, every tensor bit by bit and in its own layout.

Tensors go by dotted name; everything else goes as JSON into the file's metadata, together with what the caller adds.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from workers.training.errors import StateError

FORMAT = 1
_META = "attune"
_DIGEST = "sha256"
_MARK = "$"
"""Begins the keys of JSON objects that stand for something that JSON does not have."""


def encode(state: Mapping[str, Any], about: Mapping[str, Any]) -> bytes:
    """The file. state: tensors, numbers, text, None, lists, tuples and dicts of these; about: plain JSON.

    TypeError names what a file cannot hold. The file does not notice a bit that flips: that is its keeper's business.
    """
    tensors: dict[str, Tensor] = {}
    document = {"format": FORMAT, "about": dict(about), "state": _taken_apart(dict(state), "", tensors)}
    return safetensors.torch.save(_plain(tensors), metadata={_META: _text(document)})


def decode(content: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """(state, about) of a file; StateError when it is cut short or of another format."""
    tensors, document, _ = _opened(content)
    try:
        return _put_together(document["state"], tensors), document["about"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise StateError(f"The checkpoint cannot be put together: {error!r}") from error


def encode_weights(network: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    """A network's weights under their own names, for `safetensors.torch.load_file`; `about` goes along, and a checksum
    of all of it."""
    tensors, text = _plain(network), _text({"format": FORMAT, "about": dict(about)})
    return safetensors.torch.save(tensors, metadata={_META: text, _DIGEST: _digest(tensors, text)})


def decode_weights(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(weights, about); StateError when the file is damaged or of another format."""
    tensors, document, metadata = _opened(content)
    if metadata.get(_DIGEST) != _digest(tensors, metadata[_META]):
        raise StateError("The weights are damaged: their checksum is another one.")
    about: dict[str, Any] = document.get("about", {})
    return tensors, about


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, allow_nan=False, separators=(",", ":"))


def _opened(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, str]]:
    """Tensors, document and metadata of a file."""
    try:
        metadata = _metadata(content)
        tensors = safetensors.torch.load(content)
        document: dict[str, Any] = json.loads(metadata[_META])
        if document["format"] != FORMAT:
            raise StateError(f"The file has format {document['format']}, not {FORMAT}.")
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise StateError(f"The file cannot be read: {error!r}") from error
    return tensors, document, metadata


def _metadata(content: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: eight bytes that say how long the JSON after them is."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    found: dict[str, str] = header["__metadata__"]
    return found


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """SHA-256 over names, kinds, shapes and bits of the tensors, and the text."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU, each with memory of its own, which is what the format wants."""
    plain: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().to("cpu").contiguous()
        memory = own.untyped_storage()
        if memory.nbytes() != own.nbytes or memory.data_ptr() in taken:
            own = own.clone()
        taken.add(own.untyped_storage().data_ptr())
        plain[name] = own
    return plain


def _taken_apart(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """JSON for `value`; tensors in it go into `tensors` under names that begin with `name`."""
    match value:
        case Tensor():
            return _tensor(value, name, tensors)
        case bool() | int() | str() | None:
            return value
        case float():
            return value if math.isfinite(value) else {f"{_MARK}float": str(value)}
        case list():
            return [_taken_apart(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]
        case tuple():
            return {f"{_MARK}tuple": _taken_apart(list(value), name, tensors)}
        case dict():
            items = [(key, _taken_apart(item, f"{name}.{key}" if name else f"{key}", tensors))
                     for key, item in value.items()]  # fmt: skip
            if all(isinstance(key, str) and not key.startswith(_MARK) for key in value):
                return dict(items)
            return {f"{_MARK}items": [[_taken_apart(key, name, tensors), item] for key, item in items]}
        case _:
            raise TypeError(f"A checkpoint cannot hold {name or 'the state'}: {type(value).__name__}.")


def _tensor(tensor: Tensor, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    while name in tensors:
        name += "~"
    tensors[name] = tensor
    told: dict[str, Any] = {f"{_MARK}tensor": name}
    if tensor.layout != torch.strided:
        raise TypeError(f"A checkpoint cannot hold {name}: its layout is {tensor.layout}.")
    if not tensor.is_contiguous() or tensor.stride() != torch.empty(tensor.shape, device="meta").stride():
        told["strides"] = list(tensor.stride())
    return told


def _put_together(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_put_together(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"$tensor": str(name)}:
            return _laid_out(tensors[name], value.get("strides"))
        case {"$float": str(text)}:
            return float(text)
        case {"$tuple": list(items)}:
            return tuple(_put_together(items, tensors))
        case {"$items": list(items)}:
            return {_put_together(key, tensors): _put_together(item, tensors) for key, item in items}
        case _:
            return {key: _put_together(item, tensors) for key, item in value.items()}


def _laid_out(tensor: Tensor, strides: list[int] | None) -> Tensor:
    """The tensor in the memory layout it had: fused optimisers go through parameter and state side by side."""
    if strides is None:
        return tensor
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype).copy_(tensor)
