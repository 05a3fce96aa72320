"""attune schedule …: against a real server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.service.cli.conftest import Shell

REQUEST = """
name: weekly {{ fire_at }}
dataset: {name: cluttered-digits}
backbone: {name: resnet14, width: 8}
budget: {trials: 4}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "search.yaml"
    path.write_text(REQUEST)
    return str(path)


def test_one_command_repeats_a_search(shell: Shell, file: str) -> None:
    result = shell("schedule", "add", file, "--cron", "0 2 * * SUN", "--zone", "Europe/Berlin", "--keep", "4")
    assert result.exit_code == 0, result.output
    assert "At 02:00 on Sunday" in result.stdout
    (made,) = shell.json("schedule", "list")
    assert (made["name"], made["keep"], made["zone"]) == ("weekly", 4, "Europe/Berlin")
    assert "weekly" in shell("schedule", "list").stdout
    assert len(shell.json("schedule", "show", "weekly")["coming"]) == 5
    assert "02:00" in shell("schedule", "show", made["id"][:13]).stdout


def test_show_tells_the_next_times_on_both_clocks(shell: Shell, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--cron", "30 2 * * *", "--zone", "Europe/Berlin", "--start", "2027-01-10T00:00:00Z")
    assert shell("schedule", "add", file, *options).exit_code == 0
    with monkeypatch.context() as change:
        change.setenv("TZ", "America/New_York")
        time.tzset()
        shown = shell("schedule", "show", "weekly").stdout
        coming = shell.json("schedule", "show", "weekly")["coming"]
    time.tzset()
    assert "Mon 2027-01-11 02:30 CET  for you Sun 2027-01-10 20:30 EST" in shown
    assert coming[0]["yours"] == "Sat 2027-01-09 20:30 EST"


def test_from_pause_to_rm(shell: Shell, file: str) -> None:
    assert shell("schedule", "add", file, "--cron", "0 2 * * *", "--name", "nightly", "--paused").exit_code == 0
    assert shell.json("schedule", "resume", "nightly")["enabled"]
    assert not shell.json("schedule", "pause", "nightly")["enabled"]
    edited = shell.json("schedule", "edit", "nightly", "--cron", "30 3 * * *", "--keep", "2", "--email", "a@b.example")
    assert (edited["cron"], edited["keep"], edited["version"]) == ("30 3 * * *", 2, 4)
    assert shell.json("schedule", "edit", "nightly", "--keep", "none")["keep"] is None
    fire = shell.json("schedule", "run", "nightly")
    assert shell.json("show", fire["search_id"])["name"].startswith("weekly 20")
    assert [each["id"] for each in shell.json("schedule", "fires", "nightly")] == [fire["id"]]
    assert "Started by hand." in shell("schedule", "fires", "nightly").stdout
    assert [each["target"] for each in shell.json("schedule", "test", "nightly")] == ["a@b.example"]
    assert shell("schedule", "rm", "nightly", text="n\n").exit_code != 0
    assert shell("schedule", "rm", "nightly", "--yes").exit_code == 0
    assert shell.json("schedule", "list") == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cron", "0 0 30 2 *"], "cron"),
        (["--cron", "0 2 * * *", "--zone", "Mars/Phobos"], "zone"),
        (["--cron", "0 2 * * *", "--webhook", "https://10.0.0.1/"], "notify.0.secret"),
        (["--cron", "0 2 * * *", "--tell", "failed"], "--webhook"),
        (["--cron", "0 2 * * *", "--webhook", "https://1.1.1.1/", "--secret-file", "/nowhere"], "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_and_the_exit_code_is_2(shell: Shell, file: str, options: list[str], said: str) -> None:
    result = shell("schedule", "add", file, *options)
    assert result.exit_code == 2
    assert said in result.stderr


def test_an_unknown_schedule_and_nothing_to_change(shell: Shell, file: str) -> None:
    assert shell("schedule", "show", "nobody").exit_code == 2
    assert shell("schedule", "add", file, "--cron", "0 2 * * *").exit_code == 0
    assert shell("schedule", "edit", "weekly").exit_code == 2


def test_edit_adds_takes_away_and_changes_who_is_told(shell: Shell, file: str, tmp_path: Path) -> None:
    secret = tmp_path / "hook.secret"
    secret.write_text("a secret that is long enough")
    mails = ("--email", "a@b.example", "--email", "c@d.example", "--tell", "failed")
    assert shell("schedule", "add", file, "--cron", "0 2 * * *", *mails).exit_code == 0

    def told(*options: str) -> dict[str, list[str]]:
        changed = shell.json("schedule", "edit", "weekly", *options)
        return {each["target"]: each["events"] for each in changed["notify"]}

    hook = "https://1.1.1.1/x"
    first = {"a@b.example": ["failed"], "c@d.example": ["failed"]}
    assert told("--webhook", hook, "--secret-file", str(secret)) == {**first, hook: ["finished", "failed"]}
    assert told("--no-email", "c@d.example") == {"a@b.example": ["failed"], hook: ["finished", "failed"]}
    assert told("--email", "a@b.example", "--tell", "finished")["a@b.example"] == ["finished"]
    assert told("--tell", "failed") == {"a@b.example": ["failed"], hook: ["failed"]}
    assert shell.json("schedule", "show", "weekly")["notify"][-1]["signed"]
    assert shell("schedule", "edit", "weekly", "--no-webhook", "https://2.2.2.2/").exit_code == 2
    assert told("--no-webhook", hook, "--no-email", "a@b.example") == {}
