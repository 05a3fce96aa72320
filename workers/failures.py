"""Failures of trials by class: what a retry may cure, what not, and what a process does not survive."""

from __future__ import annotations

import traceback
from typing import Any

from workers.orders import FailureKind
from workers.storage.errors import StorageError
from workers.training.errors import DivergedError, MemberError, WeightsError

LONGEST_MESSAGE = 500
LONGEST_TRACE = 8000
_NO_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""How torch says in a plain RuntimeError that memory has run out."""
_BROKEN_DEVICE = ("CUDA error", "CUDNN_STATUS_EXECUTION_FAILED", "device-side assert", "NCCL error")
_NODE_MEMORY = ("running low on memory", "OutOfMemoryError")
"""How Ray says that it has killed a process because its node ran out of memory."""


class UnusableProcess(Exception):  # noqa: N818 - it says what the process is
    """A failure that the process must not outlive: what it holds of the GPU may be gone or broken.

    Raised out of a trial's step with the failure in it; Tune ends an actor that has raised.
    """

    def __init__(self, order_id: str, failure: dict[str, str]) -> None:
        super().__init__(order_id, failure)
        self.order_id = order_id
        self.failure = failure

    def __str__(self) -> str:
        return f"{self.failure['kind']}: {self.failure['message']}"


def kind_of(error: BaseException) -> FailureKind:
    """The class of a failure inside a trial process."""
    import torch

    from workers.datasets import ChangedDataError, DatasetError

    match error:
        case DivergedError():
            return "nan_loss"
        case torch.OutOfMemoryError() | MemoryError():
            return "out_of_memory"
        case ChangedDataError():
            return "changed_data"
        case DatasetError():
            return "dataset"
        case WeightsError():
            return "weights"
        case MemberError():
            return "killed"
        case StorageError():
            return "storage"
        case RuntimeError() if any(words in str(error) for words in _NO_MEMORY):
            return "out_of_memory"
        case _:
            return "error"


def ends_process(error: BaseException) -> bool:
    """Whether no other trial should run in this process after the error: memory that has run out is in pieces, after
    an error of the device every later call to it fails too, what connected it to a process that has died may be broken,
    and a node that sees another store would take trial after trial, each for a moment."""
    import torch

    if isinstance(error, MemberError | torch.AcceleratorError) or kind_of(error) in ("out_of_memory", "storage"):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _BROKEN_DEVICE)


def failure_of(error: BaseException) -> dict[str, str]:
    """Kind, message and traceback of a failure inside a trial process, as the driver takes them in."""
    lines = traceback.format_exception(type(error), error, error.__traceback__, limit=-20)
    return {
        "kind": kind_of(error),
        "message": shortened(str(error) or type(error).__name__),
        "traceback": "".join(lines)[-LONGEST_TRACE:],
    }


def failure_of_process(error: BaseException | str | None) -> dict[str, str]:
    """The same for a process that has died or has raised, from what Ray tells the driver."""
    carried = getattr(error, "cause", error)
    if isinstance(carried, UnusableProcess):
        return carried.failure
    text = "" if error is None else str(error)
    if type(error).__name__ == "OutOfMemoryError" or any(words in text for words in _NODE_MEMORY):
        message = "Ray has killed the trial's process because its node ran out of memory."
        return {"kind": "out_of_memory", "message": message, "traceback": text[-LONGEST_TRACE:]}
    return {"kind": "killed", "message": "The trial's process died.", "traceback": text[-LONGEST_TRACE:]}


def note(kind: str, message: str, **more: Any) -> dict[str, Any]:
    """Something that a trial tells beside its results; it becomes an event of the search."""
    return {"kind": kind, "message": shortened(message), **more}


def shortened(text: str) -> str:
    return text if len(text) <= LONGEST_MESSAGE else f"{text[: LONGEST_MESSAGE - 3]}..."
