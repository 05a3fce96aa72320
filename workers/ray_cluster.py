"""The Ray that trials run on: a standing cluster by its address, or a local one on loopback that this process owns."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

import structlog

from workers.settings import WorkerSettings

log = structlog.get_logger()

SECRETS = ("ATTUNE_DATABASE_URL", "ATTUNE_TOKEN")
"""What trial processes must not inherit."""


class RayCluster:
    """Connects on entry. address: where drivers connect."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._folder: Path | None = None
        self.address = settings.ray_address or ""

    @property
    def is_local(self) -> bool:
        """Whether this process owns the Ray."""
        return self._folder is not None

    def __enter__(self) -> RayCluster:
        if not self.address:
            _secure_local_ray()
        import ray

        if self.address:
            ray.init(address=self.address, log_to_driver=False, logging_level=logging.WARNING)
        else:
            self.address = self._start_local(ray)
        log.info("ray.connected", address=self.address, local=self._folder is not None)
        return self

    def __exit__(self, *exc: object) -> None:
        import ray

        ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)  # Ray never removes its session directories

    def _start_local(self, ray: Any) -> str:
        remove_stale_folders()
        folder = Path(tempfile.gettempdir()) / f"attune-ray-{os.getpid()}"
        old_mask = os.umask(0o077)  # Ray writes its token file readable for all otherwise
        hidden = {name: os.environ.pop(name) for name in SECRETS if name in os.environ}
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
            os.umask(old_mask)
        self._folder = folder
        return str(started.address_info["gcs_address"])

    def nodes(self) -> list[dict[str, Any]]:
        """The living nodes: id, host, and what they offer to trials."""
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


def _secure_local_ray() -> None:
    """Tokens and loopback for a local Ray. Before ray is imported: it reads these once, when it is loaded."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # this keeps its ports on loopback


def remove_stale_folders() -> None:
    """Removes what dispatchers and drivers that were killed have left: Ray cleans up neither of the two."""
    for folder in Path(tempfile.gettempdir()).glob("attune-*-*"):
        kind, pid = folder.name.split("-")[1:3]
        if kind in ("ray", "tune") and pid.isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
