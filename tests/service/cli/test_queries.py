"""list, show, watch, front: against a real server."""

from __future__ import annotations

import json
import threading

from search.pareto import Objective, front, minimised
from tests.service.cli.conftest import Shell


def test_the_front_is_that_of_all_finished_trials(shell: Shell) -> None:
    found = shell.json("front", shell.finished.id)
    values = shell.finished.values
    keep = front(minimised(values, [Objective("top1", "max"), Objective("macs", "min")]))
    assert [(p["values"]["top1"], p["values"]["macs"]) for p in found["points"]] == sorted(
        v for v, k in zip(values, keep, strict=True) if k
    )


def test_the_table_shows_the_front_in_words_with_the_gain_over_the_baseline(shell: Shell) -> None:
    found = shell.json("front", shell.finished.id)
    result = shell("front", shell.finished.id)
    assert result.exit_code == 0
    base = found["baseline"]["values"]["top1"]
    for point in found["points"]:
        assert f"{100 * point['values']['top1']:.2f} %" in result.stdout
    best = found["points"][-1]["values"]["top1"]
    assert f"{100 * (best - base):+.2f}" in result.stdout
    assert "One seed each: differences under about ±1 point of accuracy are noise." in " ".join(result.stdout.split())


def test_a_unique_prefix_is_enough_and_an_ambiguous_one_is_refused(shell: Shell) -> None:
    ids = [shell.finished.id, shell.running.id, shell.queued.id]
    prefix = next(ids[0][:n] for n in range(1, 37) if sum(i.startswith(ids[0][:n]) for i in ids) == 1)
    assert shell.json("show", prefix)["id"] == ids[0]
    ambiguous = shell("show", ids[0][0])
    assert ambiguous.exit_code == 2
    assert "3 searches" in ambiguous.stderr
    assert shell("show", "nosuch").exit_code == 2
    assert shell("show", "00000000-0000-7000-8000-000000000000").exit_code == 2


def test_list_shows_every_search_and_filters(shell: Shell) -> None:
    assert [s["id"] for s in shell.json("list")] == [shell.queued.id, shell.running.id, shell.finished.id]
    assert [s["id"] for s in shell.json("list", "--status", "running")] == [shell.running.id]
    assert "<script>alert(1)</script>" in shell("list").stdout
    wrong = shell("list", "--status", "resting")
    assert wrong.exit_code == 2
    assert "queued" in wrong.stderr


def test_show_tells_the_request(shell: Shell) -> None:
    result = shell("show", shell.finished.id)
    assert result.exit_code == 0
    assert "cluttered-digits" in result.stdout
    assert shell.finished.id in result.stdout


def test_watching_a_finished_search_tells_how_it_ended(shell: Shell) -> None:
    result = shell("watch", shell.finished.id)
    assert result.exit_code == 0
    assert "succeeded" in result.stdout


def test_watching_follows_to_the_end_and_its_exit_code_says_how(shell: Shell) -> None:
    def finish() -> None:
        shell.running.explore(1)
        shell.running.end("failed", {"kind": "x", "message": "out of luck"})

    timer = threading.Timer(0.5, finish)
    timer.start()
    result = shell("watch", shell.running.id)
    timer.join()
    assert result.exit_code == 1
    assert "[4/" in result.stdout
    assert "out of luck" in result.stdout


def test_watching_as_json_gives_every_event_once_and_then_the_search(shell: Shell) -> None:
    lines = [json.loads(line) for line in shell("watch", shell.finished.id, "--json").stdout.splitlines()]
    numbers = [int(line["id"]) for line in lines[:-1]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert lines[-1]["status"] == "succeeded"


def test_no_service_is_exit_code_3(shell: Shell) -> None:
    shell.url = "http://127.0.0.1:1"
    result = shell("list")
    assert result.exit_code == 3
    assert "attune serve" in result.stderr
