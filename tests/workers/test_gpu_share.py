"""Trials that share a GPU keep to their share of its memory."""

from __future__ import annotations

import pytest
import torch

from workers.failures import kind_of
from workers.trial_run import keep_to_share

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_trials_without_a_gpu_have_no_share() -> None:
    keep_to_share(0)
    assert not torch.cuda.is_initialized()


@needs_gpu
def test_who_takes_more_than_its_share_runs_out_of_memory() -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    keep_to_share(0.1)
    try:
        torch.empty(int(total * 0.05), dtype=torch.uint8, device="cuda")
        with pytest.raises(torch.OutOfMemoryError) as refused:
            torch.empty(int(total * 0.2), dtype=torch.uint8, device="cuda")
        assert kind_of(refused.value) == "out_of_memory"
    finally:
        keep_to_share(1)
