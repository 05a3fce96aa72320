"""submit, edit, extend, retry, cancel, pause, resume, delete; and reading request files."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli.main import app
from service.cli.requests import parse_json
from service.client import Client
from tests.service.cli.conftest import Shell
from tests.service.filling import REQUEST
from tests.service.support import wait_until

YAML = """
name: from yaml
dataset: {name: cluttered-digits}
space:
  modules: [none, se]
  stages: {3: {modules: [none, cbam]}}
"""


def test_submit_yaml_and_json_and_standard_input(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(YAML)
    (tmp_path / "a.json").write_text(json.dumps(REQUEST))
    assert shell.json("submit", str(tmp_path / "a.yaml"))["spec"]["space"]["stages"]["3"]["modules"] == ["none", "cbam"]
    assert shell.json("submit", str(tmp_path / "a.json"))["status"] == "queued"
    result = shell("submit", "-", "--json", text=YAML)
    assert json.loads(result.stdout)["name"] == "from yaml"
    assert "attune watch" in shell("submit", "-", text=YAML).stdout


def test_the_same_key_is_one_search(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(YAML)
    ids = {shell.json("submit", str(tmp_path / "a.yaml"), "--idempotency-key", "k")["id"] for _ in range(2)}
    assert len(ids) == 1


def test_a_refusal_names_field_and_choices(shell: Shell) -> None:
    result = shell(
        "submit",
        "-",
        text="name: x\ndataset: {name: cluttered-digits}\nbackbone: {name: resnet51}\nstrategy: {name: luck}\n",
    )
    assert result.exit_code == 2
    assert "backbone.name" in result.stderr
    assert "resnet50" in result.stderr
    assert "strategy.name" in result.stderr
    assert "nsga2" in result.stderr


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: 1\na: 2\n", "written twice"),
        ("x: {b: 1, b: 2}", "written twice"),
        ("a: 1\nb: [", "Line 2"),
        ("- 1", "does not hold"),
        ("a: !!python/name:os.system x", "constructor"),
    ],
)
def test_files_that_cannot_be_requests_are_refused(text: str, why: str) -> None:
    result = CliRunner().invoke(app, ["submit", "-"], input=text)
    assert result.exit_code == 2
    assert why in result.stderr


def test_duplicate_keys_are_found_in_json_too() -> None:
    with pytest.raises(ValueError, match="'a' is written twice"):
        parse_json('{"b": 1, "a": {"a": 1, "a": 2}}')


def test_a_missing_file_is_bad_input() -> None:
    result = CliRunner().invoke(app, ["submit", "nowhere.yaml"])
    assert result.exit_code == 2
    assert "nowhere.yaml" in result.stderr


def test_pause_resume_cancel_delete(shell: Shell) -> None:
    search = shell.queued.id
    assert shell.json("pause", search)["status"] == "paused"
    assert shell.json("resume", search)["status"] == "queued"
    early = shell("delete", search, "--yes")
    assert early.exit_code == 2
    assert "cancel it first" in early.stderr
    assert shell("cancel", search).stdout.startswith("Cancelled")
    assert shell("cancel", search).exit_code == 2
    assert "--yes" in shell("delete", search).stderr
    assert shell.json("delete", search, "--yes") == {"id": search, "deleted": True}
    assert shell("show", search).exit_code == 2


def test_cancelling_a_running_search_says_that_it_is_on_its_way(shell: Shell) -> None:
    assert shell("cancel", shell.running.id).stdout.startswith("Cancelling")


def test_edit_changes_what_is_said(shell: Shell) -> None:
    search = shell.running.id
    changed = shell.json("edit", search, "--name", "better", "--tag", "a", "--tag", "b", "--priority", "9")
    assert (changed["name"], changed["tags"], changed["priority"]) == ("better", ["a", "b"], 9)
    assert shell.json("edit", search[:-2], "--no-tags")["tags"] == []
    assert shell("edit", search, "--priority", "1").stdout == f"Changed {search}.\n"
    assert shell.json("show", search)["name"] == "better"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--name"),
        (("--tag", "a", "--no-tags"), "not both"),
        (("--priority", "10"), "at most 9"),
        (("--name", ""), "name: Must not be empty"),
    ],
)
def test_bad_edits_are_bad_input(shell: Shell, arguments: tuple[str, ...], says: str) -> None:
    result = shell("edit", shell.queued.id, *arguments)
    assert result.exit_code == 2
    assert says in result.stderr


def test_an_extended_search_is_watched_from_there_on(shell: Shell) -> None:
    search = shell.finished
    assert shell.json("cancel", shell.queued.id)["status"] == "cancelled"  # nobody else to claim
    before = shell.json("show", search.id)

    def work() -> None:
        with Client(shell.url) as client:
            wait_until(lambda: client.search(search.id)["status"] == "queued")
        search.claim().explore(1).end()

    driver = threading.Thread(target=work)
    driver.start()
    result = shell("extend", search.id, "--trials", "30", "--watch")
    driver.join()
    assert result.exit_code == 0, result.output
    told = [line for line in result.stdout.splitlines() if line.startswith("[")]
    assert len(told) == 1, "trials of before are not told again"
    assert told[0].startswith(f"[{before['counts']['total'] + 1}/")


def test_too_small_an_extension_names_the_budget_of_now(shell: Shell) -> None:
    result = shell("extend", shell.finished.id, "--trials", "24")
    assert result.exit_code == 2
    assert "trials: Must be over 24" in result.stderr
    assert "--gpu-hours" in shell("extend", shell.finished.id).stderr
    running = shell("extend", shell.running.id, "--trials", "100")
    assert running.exit_code == 2
    assert "this one is running" in running.stderr


def test_retry_says_when_there_is_nothing_to_try_again(shell: Shell) -> None:
    result = shell("retry", shell.finished.id)
    assert result.exit_code == 2
    assert "nothing to try again" in result.stderr
