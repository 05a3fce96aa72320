"""docker-compose.yml is honest: each service's own command, run as a local process, makes a cluster that searches.

There is no docker engine where this is tested, so host names become loopback addresses, and PostgreSQL comes from a
wheel; commands and variables are the file's.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.client import Client
from tests.e2e.conftest import ROOT, free_port, until

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
MARK = "ATTUNE_TEST_MARK"


class Cluster:
    """The services of docker-compose.yml as processes of this machine."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.mark = secrets.token_hex(8)
        self.ray_port, self.api_port = free_port(), free_port()
        self.secrets = {"ATTUNE_TOKEN": secrets.token_hex(16), "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._database = database
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, service: str, *more: str) -> subprocess.Popen[bytes]:
        """The service's own command; `more` arguments stand for what a container would bring (an address, its CPUs)."""
        described = COMPOSE["services"][service]
        command = [self._local(part) for part in described["command"]]
        if command[0] == "sh":
            command[2] = command[2].replace(" &&", f" {' '.join(more)} &&")
        else:
            command += more
        environment = {name: self._local(str(value)) for name, value in described.get("environment", {}).items()}
        if "ATTUNE_DATABASE_URL" in environment:
            environment["ATTUNE_DATABASE_URL"] = self._database
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ATTUNE_", "RAY_"))}
        paths = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "ATTUNE_HOME": str(self.folder)}
        with (self.folder / f"{service}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=kept | paths | environment | {MARK: self.mark},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text(errors="replace")

    def stop(self) -> None:
        """Ends every process that carries this cluster's mark, and its children: `ray start` leaves daemons behind,
        and those that rename themselves lose the mark."""
        parents: dict[int, int] = {}
        ours: set[int] = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with suppress(OSError):
                    pid = int(entry.name)
                    parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    if f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes():
                        ours.add(pid)
        while children := {pid for pid, parent in parents.items() if parent in ours} - ours:
            ours |= children
        for pid in ours:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._processes:
            process.wait(10)

    def _local(self, text: str) -> str:
        text = re.sub(r"\$\{(\w+)(?::[?-][^}]*)?\}", lambda found: self.secrets.get(found[1], ""), text)
        text = text.replace("ray-head:6379", f"127.0.0.1:{self.ray_port}").replace("0.0.0.0", "127.0.0.1")
        return text.replace("--port=6379", f"--port={self.ray_port}").replace("8000", str(self.api_port))


@pytest.fixture
def cluster(empty_postgresql_url: str) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="attune-c-"))  # short: Ray's sockets lie below it
    made = Cluster(folder, empty_postgresql_url)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_every_service_has_a_command_that_this_test_runs() -> None:
    assert set(COMPOSE["services"]) == {"postgres", "migrate", "ray-head", "worker", "dispatcher", "api"}
    for name, described in COMPOSE["services"].items():
        secret = {"ATTUNE_DATABASE_URL", "ATTUNE_TOKEN"} & set(described.get("environment", {}))
        assert not (name in ("worker", "ray-head") and secret), f"{name} must not know {secret}"
    assert "worker" in yaml.compose((ROOT / "docker-compose.cpu.yml").read_text()).value[0][1].value[0][0].value


@pytest.mark.slow
def test_the_services_own_commands_make_a_cluster_that_searches(cluster: Cluster) -> None:
    migrate = cluster.start("migrate")
    assert migrate.wait(60) == 0, cluster.log("migrate")
    temp = f"--temp-dir={cluster.folder}"
    cluster.start("ray-head", "--node-ip-address=127.0.0.1", temp)
    until(lambda: "Ray runtime started" in cluster.log("ray-head"), 60)
    cluster.start("worker", "--num-cpus=2", "--node-ip-address=127.0.0.1")
    until(lambda: "Ray runtime started" in cluster.log("worker"), 60)
    cluster.start("dispatcher", "--node-ip-address=127.0.0.1")
    cluster.start("api")
    with Client(f"http://127.0.0.1:{cluster.api_port}", token=cluster.secrets["ATTUNE_TOKEN"]) as client:
        until(client.ready, 60)
        until(lambda: client.catalog("datasets")["items"], 60)
        spec = {
            "name": "composed",
            "dataset": {"name": "digits"},
            "backbone": {"name": "resnet8", "width": 4},
            "space": {"modules": ["none", "se"], "reduction": [2], "pattern": ["every"]},
            "training": {"epochs": 1},
            "controls": False,
            "budget": {"trials": 2},
        }
        search_id = client.submit(spec)["id"]
        until(lambda: client.search(search_id)["status"] not in ("queued", "running"), 120)
        search = client.search(search_id)
        assert search["status"] == "succeeded", (search["error"], cluster.log("dispatcher")[-3000:])
        assert search["counts"]["succeeded"] == 3
