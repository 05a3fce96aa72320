"""What starting costs, and what must not be started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli.main import app
from service.client import Client
from tests.service.support import wait_until

HEAVY = ("torch", "ray", "sqlalchemy", "fastapi", "httpx", "numpy", "pydantic", "plotly", "uvicorn")


def test_help_imports_nothing_heavy() -> None:
    """`attune --help` has half a second; each of these takes longer than all that it needs."""
    program = (
        "import sys; from service.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        f"sys.stderr.write(','.join(sorted({HEAVY!r} & sys.modules.keys())))"
    ).replace(repr(HEAVY), repr(set(HEAVY)))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert "submit" in done.stdout


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(app, ["serve", "--port", port, "--home", str(tmp_path)])
    assert result.exit_code == 2
    assert f"Port {port} is in use" in result.stderr


def test_an_open_door_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATTUNE_TOKEN", raising=False)
    for command in ("serve", "api"):
        result = CliRunner().invoke(app, [command, "--host", "0.0.0.0", "--home", str(tmp_path)])
        assert result.exit_code == 2
        assert "ATTUNE_TOKEN" in result.stderr


@pytest.mark.slow
def test_serve_starts_everything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "service.cli.main",
        "serve",
        "--port",
        str(port),
        "--home",
        str(tmp_path),
        "--json",
    ]
    mark = f"ATTUNE_HOME={tmp_path}".encode()
    with (tmp_path / "out").open("wb") as out:
        serving = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        wait_until(lambda: b'"url"' in (tmp_path / "out").read_bytes(), 90)
        with Client(f"http://127.0.0.1:{port}") as client:
            assert client.ready()
            assert "cluttered-digits" in [item["name"] for item in client.catalog("datasets")["items"]]
        assert len(processes_with(mark)) >= 2
    finally:
        serving.send_signal(signal.SIGINT)
    assert serving.wait(32) == 0
    assert processes_with(mark) == []


def processes_with(mark: bytes) -> list[int]:
    """Processes that have this in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue
            if mark in environment.split(b"\0"):
                found.append(int(folder.name))
    return found
