"""The Ray that trials run on: a standing cluster by its address, or a local one on loopback that this process owns."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import structlog

from workers.settings import WorkerSettings
from workers.trial_environment import hidden_variables

log = structlog.get_logger()

CONNECT_SECONDS = 2.0
RETRY_SECONDS = 2.0
RAY_PROCESSES = ("gcs_server", "raylet")
"""Without one of them a local Ray is of no use."""


class RayUnreachableError(Exception):
    """There is no Ray to work with; the message says what to do."""


class RayCluster:
    """Connects with `connect`. address: where drivers connect. node: the id of this machine's node."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._folder: Path | None = None
        self._own: dict[psutil.Process, str] = {}
        self.address = settings.ray_address or ""
        self.node = ""
        self._name = ""

    @property
    def is_local(self) -> bool:
        """Whether this process owns the Ray."""
        return self._folder is not None

    @property
    def name(self) -> str:
        """What the dispatchers of one cluster agree on, and those of others do not."""
        return self._name

    def connect(self, stopping: threading.Event) -> bool:
        """Starts a local Ray, or waits for the standing one until `stopping` is set (False then).

        Raises RayUnreachableError when the cluster does not let this machine in for `ray_wait` seconds.
        """
        remove_stale_folders()
        if self.address:
            connected = self._join(stopping)
        else:
            _secure_local_ray()
            import ray

            self.address = self._start_local(ray)
            connected = True
        if connected:
            self._look_around()
        return connected

    def _join(self, stopping: threading.Event) -> bool:
        import ray

        deadline = time.monotonic() + self._settings.ray_wait
        while not stopping.is_set():
            problem = _unreachable(self.address)
            if problem is None:
                try:
                    ray.init(address=self.address, log_to_driver=False, logging_level=logging.WARNING)
                    return True
                except Exception as error:  # noqa: BLE001 - Ray raises whatever it trips over while a cluster comes up
                    problem = str(error) or type(error).__name__
                    ray.shutdown()
            log.warning("ray.away", address=self.address, problem=problem)
            if time.monotonic() >= deadline:
                raise RayUnreachableError(
                    f"No Ray cluster at ATTUNE_RAY_ADDRESS={self.address} has let this machine in for "
                    f"{self._settings.ray_wait:g} s: {problem} A dispatcher needs a node of the cluster beside it: "
                    "`ray start --address=… --num-cpus=0`."
                )
            stopping.wait(RETRY_SECONDS)
        return False

    def _look_around(self) -> None:
        import ray

        context = ray.get_runtime_context()
        self.node = context.get_node_id()
        gcs = str(context.gcs_address)
        loopback = gcs.startswith(("127.", "localhost", "[::1]"))
        self._name = f"{socket.gethostname()}/{gcs}" if loopback else gcs
        log.info("ray.connected", address=self.address, local=self.is_local)

    def close(self) -> None:
        """Leaves the cluster; a local one ends."""
        import ray

        ray.shutdown()
        self._remove_folder()

    def end_at_once(self) -> None:
        """Ends what is left of a local Ray that is broken: `ray.shutdown` would wait a minute for it."""
        for process in self._own:
            for part in [*_children(process), process]:
                try:
                    part.kill()
                except psutil.NoSuchProcess:
                    continue
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)  # Ray never removes its session directories

    def _start_local(self, ray: Any) -> str:
        folder = Path(tempfile.gettempdir()) / f"attune-ray-{os.getpid()}"
        # trial processes inherit what is left
        hidden = {name: os.environ.pop(name) for name in hidden_variables(os.environ)}
        before = set(psutil.Process().children())
        try:
            started = ray.init(
                address="local",
                num_cpus=self._settings.slots,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
                _temp_dir=str(folder),
                _node_ip_address="127.0.0.1",
            )
        finally:
            os.environ.update(hidden)
        self._folder = folder
        self._own = {process: process.name() for process in psutil.Process().children() if process not in before}
        return str(started.address_info["gcs_address"])

    def broken(self) -> str | None:
        """What has died of a local Ray, or None. Does not ask Ray, which would wait for itself."""
        dead = [name for process, name in self._own.items() if name in RAY_PROCESSES and _has_ended(process)]
        return f"Its {' and '.join(dead)} died." if dead else None

    def nodes(self) -> list[dict[str, Any]]:
        """The living nodes: id, host, and what they offer to trials. Waits for as long as Ray does not answer."""
        import ray

        return [
            {
                "id": node["NodeID"],
                "host": node["NodeManagerHostname"],
                "cpus": node["Resources"].get("CPU", 0.0),
                "gpus": node["Resources"].get("GPU", 0.0),
                "memory_bytes": int(node["Resources"].get("memory", 0)),
            }
            for node in ray.nodes()  # type: ignore[no-untyped-call]
            if node["Alive"]
        ]

    def ask_for(self, bundles: Sequence[Mapping[str, float]]) -> None:
        """Tells the cluster's autoscaler for how many trials there should be room; the last call counts."""
        from ray.autoscaler.sdk import request_resources

        request_resources(bundles=[dict(bundle) for bundle in bundles])


def _unreachable(address: str) -> str | None:
    """Why nobody answers at "host:port", or None. Asked before Ray is, which waits and then ends the process."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS):
            return None
    except ValueError:
        return f"ATTUNE_RAY_ADDRESS must be host:port, not {address!r}."
    except OSError as error:
        return f"{error}."


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _secure_local_ray() -> None:
    """Tokens and loopback for a local Ray. Before ray is imported: it reads these once, when it is loaded."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told that it runs
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # this keeps its ports on loopback


def remove_stale_folders() -> None:
    """Removes what dispatchers and drivers that were killed have left: Ray cleans up neither of the two."""
    for folder in Path(tempfile.gettempdir()).glob("attune-*-*"):
        kind, pid = folder.name.split("-")[1:3]
        if kind in ("ray", "tune") and pid.isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        return not _has_ended(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False
