"""What a store promises, on every kind of file system; and that a folder survives crashes, full disks and links."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workers.storage.errors import NotStored, StorageError
from workers.storage.store import Store, StoredFile, open_store

FULL_DISK = """
import resource, sys
from workers.storage.errors import StorageError
from workers.storage.store import open_store

store = open_store(sys.argv[1])
store.write("a/file", b"before")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for path in ("a/file", "b/other"):
    try:
        store.write(path, b"x" * 5000)
    except StorageError as error:
        print(error)
"""
KILLED = """
import os, signal, sys, threading
from workers.storage.store import open_store

store = open_store(sys.argv[1])
store.write("file", b"a" * 1_000_000)
print("ready", flush=True)
while True:
    store.write("file", b"b" * 30_000_000)
    store.write("file", b"a" * 30_000_000)
"""


def test_what_was_written_is_read_listed_and_measured(store: Store) -> None:
    store.write("one/two/file.bin", b"first")
    store.write("one/two/file.bin", b"second time")
    store.write("one/other", bytes(range(256)))
    store.write("top.json", b"")
    assert store.read("one/two/file.bin") == b"second time"
    assert store.read("one/other") == bytes(range(256))
    assert store.size("one/two/file.bin") == 11
    assert store.exists("one/two/file.bin")
    assert not store.exists("one/two")
    assert not store.exists("nothing/here")
    listed = [StoredFile("one/other", 256), StoredFile("one/two/file.bin", 11)]
    assert store.list("one") == listed
    assert store.list() == [*listed, StoredFile("top.json", 0)]
    assert store.list("nothing") == []


def test_what_is_not_there_says_so(store: Store) -> None:
    for look in (store.read, store.size):
        with pytest.raises(NotStored, match=r"no 'searches/gone' in the store"):
            look("searches/gone")
    store.remove("searches/gone")
    store.remove_all("searches")


def test_removing_takes_what_was_asked_for_and_nothing_else(store: Store) -> None:
    for path in ("s/1/a", "s/1/b/c", "s/12/a", "s/2"):
        store.write(path, b"x")
    store.remove_all("s/1")
    assert [file.path for file in store.list()] == ["s/12/a", "s/2"]
    store.remove("s/12/a")
    assert [file.path for file in store.list()] == ["s/2"]


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../out", "a/../../out", "a//b", "a/", ".hidden", "a/.git", "a\\..\\b", "a\0b", "a\nb",
             "é", "~root", "x" * 300, "/".join("ab" * 300)]
)  # fmt: skip
def test_no_path_leads_out(store: Store, path: str) -> None:
    for use in (store.read, store.exists, store.size, store.remove, store.remove_all, lambda p: store.write(p, b"x")):
        with pytest.raises(StorageError, match="no path of a store"):
            use(path)


def test_links_out_of_a_folder_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    root = tmp_path / "store"
    root.mkdir()
    (root / "link").symlink_to(outside)
    store = open_store(str(root))
    for use in (store.read, store.remove, lambda p: store.write(p, b"x")):
        with pytest.raises(StorageError, match="leads out"):
            use("link/kept")
    with pytest.raises(StorageError, match="leads out"):
        store.remove_all("link")
    assert store.list() == []
    assert (outside / "kept").read_text() == "kept"


def test_a_folder_that_is_itself_a_link_is_a_store(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "volume")
    store = open_store(str(tmp_path / "link"))
    store.write("a/b", b"x")
    assert (tmp_path / "volume/a/b").read_bytes() == b"x"
    assert store.read("a/b") == b"x"


def test_a_folder_keeps_no_empty_folders(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    store.write("searches/1/2/file", b"x")
    store.remove("searches/1/2/file")
    assert os.listdir(tmp_path / "store") == []


def test_a_full_disk_leaves_the_old_file_and_no_part_of_the_new_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.count("Cannot write") == 2
    assert "File too large" in done.stdout
    store = open_store(str(tmp_path))
    assert [file.path for file in store.list()] == ["a/file"]
    assert store.read("a/file") == b"before"


def test_a_writer_that_is_killed_leaves_a_whole_file(tmp_path: Path) -> None:
    for pause in (0.01, 0.05, 0.08):
        writer = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(pause)
        writer.kill()
        writer.wait(10)
        writer.stdout.close()
        content = (tmp_path / "file").read_bytes()
        assert content in (b"a" * len(content), b"b" * len(content))
        assert len(content) in (1_000_000, 30_000_000)


def test_an_unknown_protocol_or_a_missing_package_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"ATTUNE_STORAGE=nope://x cannot be opened: .*nope"):
        open_store("nope://x")
    with pytest.raises(StorageError, match="Install it on every node"):
        open_store("sftp://host/x")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StorageError, match="Cannot write 'a' in the store"):
        open_store(str(blocked)).write("a", b"")
