"""What a failure is called, and whether the process may go on."""

from __future__ import annotations

import pickle

import pytest
import torch
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from workers.datasets import DatasetError
from workers.failures import UnusableProcess, ends_process, failure_of, failure_of_process, kind_of
from workers.storage.errors import NotStored, StorageError
from workers.training.errors import DivergedError, WeightsError

CASES = [
    (DivergedError(3, "training loss"), "nan_loss", False),
    (torch.OutOfMemoryError("CUDA out of memory."), "out_of_memory", True),
    (MemoryError(), "out_of_memory", True),
    (torch.AcceleratorError("CUDA error: out of memory"), "out_of_memory", True),
    (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), "error", True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "out_of_memory", True),
    (RuntimeError("CUDA error: device-side assert triggered"), "error", True),
    (DatasetError("train/ is gone"), "dataset", False),
    (WeightsError("no such file"), "weights", False),
    (StorageError("the store is another one"), "storage", True),
    (NotStored("no such file"), "storage", True),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "error", False),
    (ValueError("CUDA out of memory is what this message only mentions"), "error", False),
]


@pytest.mark.parametrize(("error", "kind", "ends"), CASES, ids=lambda value: str(value)[:40])
def test_failures_are_classified(error: Exception, kind: str, ends: bool) -> None:
    assert kind_of(error) == kind
    assert ends_process(error) is ends


def test_memory_that_the_machine_does_not_have_is_recognised() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**50, dtype=torch.uint8)
    assert kind_of(refused.value) == "out_of_memory"
    assert ends_process(refused.value)


def test_a_failure_holds_its_traceback_and_a_message_of_a_length_that_fits() -> None:
    try:
        raise ValueError("x" * 2000)
    except ValueError as error:
        failure = failure_of(error)
    assert failure["kind"] == "error"
    assert len(failure["message"]) == 500
    assert "test_a_failure_holds_its_traceback" in failure["traceback"]
    assert failure_of(KeyError())["message"] == "KeyError"


def test_what_ray_tells_of_a_dead_process_is_classified() -> None:
    failure = {"kind": "out_of_memory", "message": "no room", "traceback": "at line 1"}
    carried = pickle.loads(pickle.dumps(UnusableProcess("trial", failure)))
    assert failure_of_process(carried) == failure
    assert failure_of_process(RayTaskError("step", "trace", carried).as_instanceof_cause()) == failure
    killed = failure_of_process(RayActorError(error_msg="The actor died: exit code -9"))
    assert killed["kind"] == "killed"
    assert "exit code -9" in killed["traceback"]
    assert failure_of_process(None)["kind"] == "killed"
    low = "Task was killed due to the node running low on memory."
    assert failure_of_process(OutOfMemoryError(low))["kind"] == "out_of_memory"
    assert failure_of_process(RayActorError(error_msg=low))["kind"] == "out_of_memory"
