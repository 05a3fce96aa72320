"""Whoever reaches a Ray's ports runs code there: a local one lets nobody in who does not show its token."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
OWNER = """
import os, sys, threading
os.umask(0o077)
from workers.ray_cluster import RayCluster
from workers.settings import WorkerSettings

cluster = RayCluster(WorkerSettings())
assert cluster.connect(threading.Event())
print("READY", cluster.address, os.environ["RAY_AUTH_TOKEN"], flush=True)
sys.stdin.read()
cluster.close()
"""
GUEST = """
import sys
import ray

ray.init(address=sys.argv[1], log_to_driver=False)
print("IN", ray.get(ray.remote(lambda: 6 * 7).remote()))
"""


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ATTUNE_", "RAY_"))}
    ours = {"PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    return kept | ours | more


@pytest.fixture(scope="module")
def local_ray() -> Iterator[tuple[str, str]]:
    """Address and token of a Ray that a dispatcher would start."""
    with tempfile.TemporaryDirectory(prefix="attune-t-") as home:
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER], env=environment(ATTUNE_HOME=home, ATTUNE_SLOTS="1"), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert owner.stdout is not None
        try:
            ready = next(line for line in owner.stdout if line.startswith("READY "))
            _, address, token = ready.split()
            yield address, token
        finally:
            owner.communicate(timeout=60)


def join(address: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", GUEST, address], env=environment(**more), capture_output=True, text=True, timeout=150,
        check=False,
    )  # fmt: skip


def test_the_right_token_is_let_in(local_ray: tuple[str, str]) -> None:
    address, token = local_ray
    done = join(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)
    assert "IN 42" in done.stdout, done.stderr[-3000:]


@pytest.mark.parametrize("mode", ["token", "disabled"])
def test_a_wrong_token_and_none_are_refused(local_ray: tuple[str, str], mode: str) -> None:
    address, token = local_ray
    shown = {"RAY_AUTH_TOKEN": "0" * len(token)} if mode == "token" else {}
    done = join(address, RAY_AUTH_MODE=mode, **shown)
    assert done.returncode != 0
    assert "IN" not in done.stdout
    assert token not in done.stdout + done.stderr
