"""The service on one machine: where its home is, which port is free, and its processes."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer

from service.cli.supervisor import Child, Supervisor, tail
from service.problems import AttuneError

START_SECONDS = 60.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class House:
    """Host and port of the API, and the folder that holds database, artifacts and logs."""

    host: str
    port: int
    home: Path

    @property
    def url(self) -> str:
        """The address that a browser on this machine opens."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "localhost") else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def link(self, path: str = "/") -> str:
        """The address of a page, with the way in when a token is asked for."""
        token = os.environ.get("ATTUNE_TOKEN")
        return f"{self.url}/login?token={token}" if token else f"{self.url}{path}"

    def environment(self) -> dict[str, str]:
        """What every process of the service is told: the same home, address and settings."""
        return os.environ | {
            "ATTUNE_HOME": str(self.home),
            "ATTUNE_HOST": self.host,
            "ATTUNE_PORT": str(self.port),
            "PYTHONUNBUFFERED": "1",
        }

    def api(self) -> tuple[str, list[str]]:
        """Module and arguments of the API process."""
        return "uvicorn", [
            "service.app:create_app", "--factory", "--host", self.host, "--port", str(self.port),
            "--timeout-graceful-shutdown", "5", "--log-level", "warning", "--no-server-header",
        ]  # fmt: skip

    def supervisor(self, say: Callable[[str], None]) -> Supervisor:
        logs = self.home / "logs"
        module, arguments = self.api()
        children = [
            Child("the API", module, arguments, logs / "api.log"),
            Child("the dispatcher", "workers.dispatcher", [], logs / "dispatcher.log"),
        ]
        return Supervisor(children, self.environment(), say)

    def check(self) -> None:
        """Raises AttuneError when the service must not or cannot start here."""
        if self.host not in LOOPBACK and not os.environ.get("ATTUNE_TOKEN"):
            raise AttuneError(
                f"Listening on {self.host} lets others in: set ATTUNE_TOKEN to a long random text first, "
                "or leave the host at 127.0.0.1.",
                status=400,
            )
        if not port_is_free(self.host, self.port):
            raise AttuneError(f"Port {self.port} is in use: choose another one with --port.", status=400)
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)


def find_home(given: Path | None) -> Path:
    """`given`, else ATTUNE_HOME, else ~/.attune."""
    home = given or Path(os.environ.get("ATTUNE_HOME") or Path.home() / ".attune")
    return home.expanduser().absolute()


def port_is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str, wanted: int) -> int:
    """`wanted` if it is free, else any free one."""
    if port_is_free(host, wanted):
        return wanted
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def wait_until_ready(house: House, supervisor: Supervisor, stopping: threading.Event) -> bool:
    """True when the API answers and the workers' data sets are known, False when asked to stop meanwhile.

    AttuneError when a process keeps dying or the time is up.
    """
    from service.client import Client

    deadline = time.monotonic() + START_SECONDS
    with Client(house.url, attempts=1, timeout=5.0) as client:
        while time.monotonic() < deadline:
            failing = supervisor.failing()
            if failing is not None:
                _show_log(failing)
                raise AttuneError(f"{failing.name} does not start.", status=500)
            if client.ready() and client.catalog("datasets")["items"]:
                return True
            if stopping.wait(0.15):
                return False
    for child in supervisor.children:
        _show_log(child)
    raise AttuneError(f"The service did not come up in {START_SECONDS:g} s.", status=500)


def _show_log(child: Child) -> None:
    typer.echo("\n".join([f"--- last lines of {child.log}", *tail(child.log)]), err=True)
