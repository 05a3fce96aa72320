"""A real server over a database that holds realistic searches, and the command line pointed at it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from service.cli.main import app
from service.settings import ServiceSettings
from tests.service.filling import FilledSearch, Template
from tests.service.support import served


@dataclass
class Shell:
    """The command line against one server. finished, running, queued: searches that are there."""

    url: str
    rows: Template

    @property
    def finished(self) -> FilledSearch:
        return self.rows.finished

    @property
    def running(self) -> FilledSearch:
        return self.rows.running

    @property
    def queued(self) -> FilledSearch:
        return self.rows.queued

    def __call__(self, *arguments: str, text: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=text, env={"ATTUNE_URL": self.url, "COLUMNS": "160"})

    def json(self, *arguments: str) -> Any:
        result = self(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Template:
    path = tmp_path_factory.mktemp("filled") / "attune.db"
    shutil.copy(sqlite_template, path)
    return Template.make(path)


@pytest.fixture
def shell(filled: Template, tmp_path: Path) -> Iterator[Shell]:
    rows = filled.copied(tmp_path / "shell.db")
    with served(ServiceSettings(database_url=rows.url, event_poll_seconds=0.02)) as url:
        yield Shell(url, rows)
    rows.close()
