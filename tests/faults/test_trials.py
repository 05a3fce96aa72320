"""Trials that go wrong: each says why, the search goes on, and what was trained already is not trained again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.house import House, Ray, until
from tests.faults.invariants import partial_files, rows
from tests.faults.searches import (
    PATIENCE,
    check_results,
    marker_of,
    notes,
    pids,
    trained,
    troubled,
    wait_for_training,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS = 6


def failed(house: House, search_id: str) -> list[dict[str, Any]]:
    return list(house.client.trials(search_id, status="failed"))


def checkpoints(house: House, search_id: str) -> list[Path]:
    """The checkpoints of the one trial that is at work, oldest first."""
    return sorted((house.home / "storage" / "searches" / search_id).glob("*/epoch-*"))


def stopped_in_epoch(house: House, ray: Ray, spec: dict[str, Any], epochs: int) -> psutil.Process:
    """The process of the first trial that has begun the epoch after `epochs`, stopped where it is."""
    line = wait_for_training(house, spec, epochs)
    process = psutil.Process(line["pid"])
    process.suspend()
    return process


@pytest.mark.parametrize("trouble", ["nan", "nan_result"])
def test_a_loss_that_becomes_nan_fails_the_trial_without_a_number(house: House, trouble: str) -> None:
    spec = troubled(trouble=trouble, sites=2, epoch=2, epochs=3, trials=7)
    ended = house.finished(house.client.submit(spec)["id"], PATIENCE)
    assert ended["status"] == "succeeded", ended["error"]
    lost = failed(house, ended["id"])
    assert len(lost) == 3, "of 8 placements, those in two of three stages"
    for trial in lost:
        assert trial["error"]["kind"] == "nan_loss"
        assert (trial["top1"], trial["retries"]) == (None, 0)
    assert ended["counts"]["succeeded"] == 5
    check_results(house, ended["id"], 3)


def test_after_out_of_memory_the_next_trial_runs_in_another_process(house: House, ray_node: Ray) -> None:
    spec = troubled(trouble="memory", sites=1, concurrent=1)
    ended = house.finished(house.client.submit(spec)["id"], PATIENCE)
    assert ended["status"] == "succeeded", ended["error"]
    lost = failed(house, ended["id"])
    assert [(t["error"]["kind"], t["retries"]) for t in lost] == [("out_of_memory", 0)] * 3
    journal = ray_node.journal(marker_of(spec))
    for number, line in enumerate(journal):
        if line["event"] == "trouble":
            assert line["pid"] not in [later["pid"] for later in journal[number + 1 :]], "that process trains no more"
    assert [line["event"] for line in journal].count("trouble") == 3
    assert [line["event"] for line in journal].count("epoch") == 5


def test_a_killed_trial_goes_on_from_its_checkpoint_in_another_process(house: House, ray_node: Ray) -> None:
    spec = troubled(epochs=EPOCHS, seconds=0.5, concurrent=1, trials=1)
    search_id = house.client.submit(spec)["id"]
    line = wait_for_training(house, spec, 3)
    psutil.Process(line["pid"]).kill()
    ended = house.finished(search_id, PATIENCE)
    assert ended["status"] == "succeeded", ended["error"]
    assert set(trained(ray_node, spec).values()) == {1}, "no epoch was trained to its end twice"
    assert len(pids(ray_node, spec)[line["key"]]) == 2
    trial = next(t for t in house.client.trials(search_id) if t["key"] == line["key"])
    assert (trial["status"], trial["retries"]) == ("succeeded", 1)
    assert [note["epoch"] for note in notes(house, search_id, "trial.resumed")] == [3]
    check_results(house, search_id, EPOCHS)
    assert checkpoints(house, search_id) == [], "a finished trial keeps its weights only"


@pytest.mark.parametrize(("damaged", "goes_on_from"), [(1, 3), (2, None)])
@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    sqlite_house: House, ray_node: Ray, damaged: int, goes_on_from: int | None, how: str
) -> None:
    spec = troubled(epochs=EPOCHS, seconds=0.5, concurrent=1, trials=1)
    search_id = sqlite_house.client.submit(spec)["id"]
    process = stopped_in_epoch(sqlite_house, ray_node, spec, 4)
    kept = checkpoints(sqlite_house, search_id)
    assert [int(path.name.split("-")[1]) for path in kept] == [3, 4], "the last two"
    for path in kept[-damaged:]:
        content = bytearray(path.read_bytes())
        if how == "truncated":
            path.write_bytes(content[: len(content) // 2])
        else:
            content[-1] ^= 1
            path.write_bytes(content)
    process.kill()
    ended = sqlite_house.finished(search_id, PATIENCE)
    assert ended["status"] == "succeeded", ended["error"]
    loaded = [line["epoch"] for line in ray_node.journal(marker_of(spec)) if line["event"] == "load"]
    assert loaded == ([] if goes_on_from is None else [goes_on_from])
    assert notes(sqlite_house, search_id, "checkpoint.corrupt"), "the user is told"
    check_results(sqlite_house, search_id, EPOCHS)


@pytest.mark.parametrize("epoch", [2, 4])
def test_a_full_disk_costs_the_file_and_not_the_trial(sqlite_house: House, ray_node: Ray, epoch: int) -> None:
    """In the second epoch it is a checkpoint that cannot be written, in the last one the weights."""
    spec = troubled(trouble="full_disk", sites=0, epoch=epoch, epochs=4, megabytes=8, concurrent=1, trials=1)
    search_id = sqlite_house.client.submit(spec)["id"]
    ended = sqlite_house.finished(search_id, PATIENCE)
    assert ended["status"] == "succeeded", ended["error"]
    assert set(trained(ray_node, spec).values()) == {1}
    assert len(notes(sqlite_house, search_id, "checkpoint.failed")) == 1, "of the baseline, which has no site"
    baseline = next(trial for trial in sqlite_house.client.trials(search_id) if trial["role"] == "baseline")
    weights = sqlite_house.home / "storage" / "searches" / search_id / baseline["id"] / "weights.safetensors"
    assert weights.exists() == (epoch < 4), "the file is there as a whole or not at all"
    assert partial_files(sqlite_house.home / "storage") == []
    check_results(sqlite_house, search_id, 4)


@pytest.mark.parametrize("trouble", ["hang", "freeze"])
def test_a_trial_that_hangs_is_ended_by_its_watchdog_and_tried_again_up_to_the_limit(
    sqlite_house: House, ray_node: Ray, trouble: str
) -> None:
    """`freeze`: the whole process is stopped, so that no watchdog inside it can run."""
    sqlite_house.end("dispatcher")
    sqlite_house.start_dispatcher(ATTUNE_EPOCH_TIMEOUT="20")  # long enough for importing torch on a busy machine
    try:
        once = troubled(trouble=trouble, sites=3, epoch=2, epochs=3, times=1, concurrent=1)
        always = troubled(trouble=trouble, sites=3, epoch=1, epochs=3, concurrent=1)
        found = [sqlite_house.client.submit(spec)["id"] for spec in (once, always)]
        ended = [sqlite_house.finished(search_id, 2 * PATIENCE) for search_id in found]
        assert [search["status"] for search in ended] == ["succeeded"] * 2
        assert failed(sqlite_house, found[0]) == []
        assert set(trained(ray_node, once).values()) == {1}, "it goes on from the epoch before"
        given_up = failed(sqlite_house, found[1])
        assert [(t["error"]["kind"], t["retries"]) for t in given_up] == [("timeout", 1)]
        assert ended[1]["counts"]["succeeded"] == 7
        for search_id in found:
            check_results(sqlite_house, search_id, 3)
    finally:
        sqlite_house.end("dispatcher")  # the next fault gets one with the usual limit


def test_a_data_set_removed_between_submit_and_start_fails_the_search_once(house: House, ray_node: Ray) -> None:
    spec = troubled(trouble="removed", sites=0)
    images = ray_node.folder / f"images-{marker_of(spec)}"
    images.touch()
    house.end("dispatcher")
    search_id = house.client.submit(spec)["id"]
    images.unlink()
    house.start_dispatcher()
    ended = house.finished(search_id, PATIENCE)
    assert ended["status"] == "failed"
    assert "is gone" in ended["error"]["message"]
    assert [t["error"]["kind"] for t in failed(house, search_id)] == ["dataset"]
    tries = [line for line in ray_node.journal(marker_of(spec)) if line["event"] == "trouble"]
    assert len(tries) <= 2, "no retry loop: at most what the other slot had begun"
    assert rows(house.engine, f"SELECT attempt FROM searches WHERE id = '{search_id}'")[0]["attempt"] == 1


def test_a_data_set_that_the_workers_do_not_have_any_more_fails_the_search_once(house: House) -> None:
    search_id = house.client.submit(troubled())["id"]
    house.client.pause(search_id)
    until(lambda: house.client.search(search_id)["status"] == "paused", PATIENCE)
    house.end("dispatcher")
    house.start("dispatcher", "workers.dispatcher", ATTUNE_PLUGINS="")
    until(lambda: "troubles" not in [item["name"] for item in house.client.catalog("datasets")["items"]], PATIENCE)
    house.client.resume(search_id)
    ended = house.finished(search_id, PATIENCE)
    assert ended["status"] == "failed"
    assert "troubles" in ended["error"]["message"]
    house.end("dispatcher")
