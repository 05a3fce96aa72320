"""A trial on images that are decoded while it trains."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from search.recipes import resolve
from tests.workers.datasets.conftest import data as data
from tests.workers.datasets.conftest import home as home
from tests.workers.datasets.conftest import write_images
from tests.workers.test_trial_run import CBAM, kinds, order_of
from workers.datasets.loading import entry
from workers.storage.identity import write_marker
from workers.storage.store import open_store
from workers.training.request import TrialRequest
from workers.trial_run import TrialRun


def test_a_trial_that_waits_for_its_images_says_so_once_and_leaves_no_process(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, count in (("train", 24), ("val", 4), ("test", 4)):  # dear to decode, and next to nothing to train on
        write_images(data / "photos" / name, {"a": count // 2, "b": count // 2}, size=(700, 500))
    monkeypatch.setenv("ATTUNE_DATA_MEMORY", "1000")
    options = {"image_size": 8, "normalisation": "imagenet"}
    resolved = entry("photos").resolve(options)
    request = TrialRequest(
        architecture=CBAM, task=resolved.task, dataset="photos", dataset_options=options, epochs=3, seed=1,
        recipe=resolve("quick", {"epochs": 3, "batch_size": 8, "augment": "crop_flip"}).model_dump(mode="json"),
    )  # fmt: skip
    store = open_store(str(tmp_path / "store"))
    write_marker(store, "the-store")
    trial = TrialRun(order_of(store, request), "here")
    told = [trial.step() for _ in range(3)]
    assert all(0 < step["epoch"]["wait_share"] <= 1 for step in told)
    assert [kind for step in told for kind in kinds(step)] == ["data.slow"]
    (note,) = [note for step in told for note in step["notes"]]
    assert "waited" in note["message"]
    decoders = [process for process in psutil.Process().children(recursive=True) if _is_decoder(process)]
    assert decoders
    trial.close()
    _, alive = psutil.wait_procs(decoders, timeout=20)
    assert not alive


def _is_decoder(process: psutil.Process) -> bool:
    """Whether multiprocessing's fork server has started it."""
    try:
        parent = process.parent()
        return parent is not None and "multiprocessing.forkserver" in " ".join(parent.cmdline())
    except psutil.NoSuchProcess:
        return False
