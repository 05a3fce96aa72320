"""A client and the command line against a real API process that is killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from db import searches
from db.engine import make_engine, reading
from service.client import Client
from service.problems import AttuneError
from tests.e2e.house import free_port
from tests.service.support import SPEC, publish_digits, wait_until

pytestmark = pytest.mark.slow


class Api:
    """An API process on a port of its own."""

    def __init__(self, database_url: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = os.environ | {"ATTUNE_DATABASE_URL": database_url}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "uvicorn", "service.app:create_app", "--factory", "--port", str(self.port)]
        self._process = subprocess.Popen([*command, "--log-level", "critical"], env=self._environment)

    def kill(self) -> None:
        """As an out-of-memory killer does: nobody is told."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def wait(self) -> None:
        with Client(self.url) as client:
            wait_until(client.ready, 60)


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    engine = make_engine(database_url)
    publish_digits(engine)
    engine.dispose()
    found = Api(database_url)
    yield found
    found.kill()


def stored(database_url: str) -> list[str]:
    """Names of the searches that the database holds."""
    engine = make_engine(database_url)
    with reading(engine) as session:
        names = [search.name for search in searches.page(session, limit=500).items]
    engine.dispose()
    return sorted(names)


def test_submissions_outlast_an_api_that_is_killed_again_and_again(api: Api, database_url: str) -> None:
    api.start()
    api.wait()
    ended = threading.Event()

    def trouble() -> None:
        for _ in range(2):
            time.sleep(0.7)  # in the middle of whatever is going on
            api.kill()
            api.start()
        ended.set()

    killer = threading.Thread(target=trouble)
    killer.start()
    names = iter(range(10_000))
    answers: dict[str, str] = {}

    def submit_until_the_end(_: int) -> None:
        with Client(api.url, patience=120.0) as client:
            while not ended.is_set():
                name = f"n{next(names)}"
                answers[name] = client.submit(SPEC | {"name": name})["id"]

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(submit_until_the_end, range(3)))
    killer.join()
    api.wait()
    assert len(answers) >= 3
    assert stored(database_url) == sorted(answers), "one search for each submission, whatever was repeated"
    assert len(set(answers.values())) == len(answers)


def test_the_command_line_waits_for_an_api_that_comes_up(api: Api, database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "request.yaml"
    file.write_text(yaml.safe_dump(SPEC))
    command = [sys.executable, "-m", "service.cli.main", "submit", str(file)]
    with subprocess.Popen(
        command, env=os.environ | {"ATTUNE_URL": api.url}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as shell:
        assert shell.stderr is not None
        assert "No attune service answers" in shell.stderr.readline()
        assert "Trying again" in shell.stderr.readline()
        api.start()
        out, told = shell.communicate(timeout=90)
    assert shell.returncode == 0, told
    assert out.startswith("Queued ")
    assert stored(database_url) == [SPEC["name"]]


def test_reads_give_up_soon(api: Api) -> None:
    began = time.monotonic()
    with Client(api.url) as client, pytest.raises(AttuneError) as caught:
        client.cluster()
    assert caught.value.unreachable
    assert time.monotonic() - began < 20


def test_extensions_outlast_a_restart(api: Api, database_url: str) -> None:
    api.start()
    api.wait()
    with Client(api.url, patience=120.0) as client:
        found = client.submit(SPEC)
        client.cancel(found["id"])
        api.kill()
        starter = threading.Timer(1.0, api.start)
        starter.start()
        extended: dict[str, Any] = client.extend(found["id"], trials=99)
        starter.join()
        assert (extended["status"], extended["spec"]["budget"]["trials"]) == ("queued", 99)
        with pytest.raises(AttuneError, match="queued"):
            client.retry(found["id"])
