"""Logs do not grow without end, and their writers, who keep them open, go on writing."""

from __future__ import annotations

import os
from pathlib import Path

from workers.logs import keep_logs_small


def test_a_log_that_grows_is_emptied_under_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "drivers.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"a" * 100)
        keep_logs_small(tmp_path, largest=100)
        assert path.stat().st_size == 100
        writer.write(b"b")
        keep_logs_small(tmp_path, largest=100)
        assert path.stat().st_size == 0
        writer.write(b"new")
    assert path.read_bytes() == b"new"
    assert (tmp_path / "drivers.1.log").read_bytes() == b"a" * 100 + b"b"


def test_the_oldest_logs_go_when_all_are_too_large(tmp_path: Path) -> None:
    for age, name in enumerate(["new", "middle", "old"]):
        path = tmp_path / f"search-{name}.log"
        path.write_bytes(b"x" * 40)
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    (tmp_path / "other.txt").write_bytes(b"x" * 1000)
    keep_logs_small(tmp_path, most=100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.txt", "search-middle.log", "search-new.log"]


def test_a_folder_that_is_not_there_has_no_logs(tmp_path: Path) -> None:
    keep_logs_small(tmp_path / "none")
