"""Decoded images on disk: written once however many want them, never half, never out of date."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.workers.datasets.conftest import write_images
from workers.datasets import array_cache
from workers.datasets.array_cache import Entry, Shelf
from workers.datasets.loading import load

LIMIT = 10**9
SCRIPT = """
import sys, time
from workers.datasets import decoded
from workers.datasets.folders import ImageFolder

made = decoded.Decoder.fill
def counted(self, shelf, rows):
    with open(sys.argv[1], "a") as file:
        file.write("decoded\\n")
    time.sleep(2)  # long enough for the others to come
    made(self, shelf, rows)
decoded.Decoder.fill = counted
dataset = ImageFolder("pets")
splits = dataset.splits(dataset.entry().resolve().options)
print(int(splits.train.images.sum()), len(splits.train.labels))
"""


def fill(shelf: Shelf) -> None:
    shelf.array("a", (5, 2))[:] = np.arange(10).reshape(5, 2)
    shelf.array("b", (0, 3))
    shelf.shorten("a", np.array([0, 3, 4]))
    shelf.entry.meta["x"] = 7


def never(shelf: Shelf) -> None:
    raise AssertionError("it was there already")


def check(entry: Entry) -> None:
    assert entry.arrays["a"].tolist() == [[0, 1], [6, 7], [8, 9]]
    assert entry.arrays["b"].shape == (0, 3)
    assert entry.meta == {"x": 7}


def test_what_was_made_is_found_again(tmp_path: Path) -> None:
    check(array_cache.get(tmp_path, "k", fill, LIMIT))
    entry = array_cache.get(tmp_path, "k", never, LIMIT)
    check(entry)
    entry.arrays["a"][:] = 99  # a trial may write to its tensors
    check(array_cache.get(tmp_path, "k", never, LIMIT))


@pytest.mark.parametrize("damage", ["meta", "short", "gone", "text", "part"])
def test_an_incomplete_entry_is_made_again(tmp_path: Path, damage: str) -> None:
    array_cache.get(tmp_path, "k", fill, LIMIT)
    place = tmp_path / "k"
    match damage:
        case "meta":
            (place / "meta.json").unlink()
        case "short":
            os.truncate(place / "a", 3)
        case "gone":
            (place / "a").unlink()
        case "text":
            (place / "meta.json").write_text('{"shapes": ')
        case "part":
            place.rename(tmp_path / "k.part")
    check(array_cache.get(tmp_path, "k", fill, LIMIT))
    check(array_cache.get(tmp_path, "k", never, LIMIT))


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(shelf: Shelf) -> None:
        shelf.array("a", (5, 2))
        raise KeyError("half way")

    with pytest.raises(KeyError):
        array_cache.get(tmp_path, "k", fail, LIMIT)
    assert [path.name for path in tmp_path.iterdir()] == ["k.lock"]


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    def large(shelf: Shelf) -> None:
        shelf.array("a", (1000, 100))

    for number, key in enumerate("abc"):
        array_cache.get(tmp_path, key, large, 450_000)
        os.utime(tmp_path / key, (number, number))
    array_cache.get(tmp_path, "a", never, 450_000)
    array_cache.get(tmp_path, "d", large, 320_000)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["a", "c", "d"]
    kept = array_cache.get(tmp_path, "e", large, 0)  # one that is larger than all the room is kept while it is the last
    assert kept.problem == ""
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["e"]


def test_where_nothing_can_be_written_images_stay_in_memory_and_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    entry = array_cache.get(tmp_path / "file" / "cache", "k", fill, LIMIT)
    check(entry)
    assert str(tmp_path / "file" / "cache") in entry.problem


def test_a_full_disk_is_told_and_ends_no_process(tmp_path: Path) -> None:
    """Stood in for by a limit on the size of files."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from workers.datasets import array_cache\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "def fill(shelf): shelf.array('a', (1000, 1000))[:] = 3\n"
        "entry = array_cache.get(Path(sys.argv[1]), 'k', fill, 10**9)\n"
        "print(int(entry.arrays['a'].sum()), entry.problem)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith("3000000 Decoded images are kept in memory")
    assert [path.name for path in tmp_path.iterdir()] == ["k.lock"]


def test_processes_that_start_at_once_decode_once(data: Path, tmp_path: Path) -> None:
    write_images(data / "pets", {"a": 150, "b": 150}, size=(64, 64))
    journal, script = tmp_path / "journal", tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    running = [
        subprocess.Popen(
            [sys.executable, str(script), str(journal)], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    answers = {process.communicate(timeout=250)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(answers) == 1
    assert journal.read_text() == "decoded\n"


def test_an_entry_is_never_out_of_date(data: Path, home: Path) -> None:
    write_images(data / "pets", {"a": 30, "b": 30}, size=(8, 8))
    before = load("pets").train.images.clone()
    write_images(data / "pets", {"a": 30, "b": 30}, size=(8, 8), seed=7_000)
    after = load("pets").train.images
    assert before.shape != after.shape or not np.array_equal(before.numpy(), after.numpy())
    metas = [json.loads(path.read_text()) for path in (home / "cache" / "images").glob("*/meta.json")]
    assert len(metas) == 2
