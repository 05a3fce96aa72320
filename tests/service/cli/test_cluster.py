"""`attune cluster` against a real server."""

from __future__ import annotations

from db import attempts, catalog, claims
from db.engine import writing
from tests.service.cli.conftest import Shell


def publish(shell: Shell, node: str, **document: object) -> None:
    with writing(shell.running.engine) as session:
        catalog.publish_node(session, node, document)


def test_the_table_says_who_runs_what(shell: Shell) -> None:
    publish(shell, "aaaaaaaa-1", cpus=4, gpus=1, host="big", dispatcher="big:77:x-1@ray")
    publish(shell, "bbbbbbbb-2", cpus=2, gpus=0, host="odd", storage_problem="odd sees another store.")
    running = shell.running
    space = running.plan.space
    choice = next(a for a in map(space.architecture, space.enumerate()) if not a.is_baseline)
    trial = running.trial(choice, status="running")
    assert trial is not None
    with writing(running.engine) as session:
        attempts.place(session, running.id, running.attempt, trial, "aaaaaaaa-1")
        assert claims.register_driver(session, running.id, running.attempt, "big:4242:x-2")
        claims.set_quotas(session, {running.id: 3})
        assert claims.renew(session, running.id, running.attempt, 60, active_seconds=5, seconds_left=725)
    result = shell("cluster")
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert "2 nodes with 4 slots, 1 GPU · 1 trial running · 1 search running, 1 waiting" in text
    for word in ("big:4242", "about 12 min", "1 of 3", "odd sees another store.", "3/8", "<script>", "not yet"):
        assert word in text, word
    found = shell.json("cluster")
    assert [trial["id"] for trial in found["nodes"][0]["trials"]] == [trial]
    shown = shell("show", running.id).stdout
    assert "about 12 min" in shown


def test_an_empty_cluster_says_what_to_do(shell: Shell) -> None:
    result = shell("cluster")
    assert result.exit_code == 0
    assert "attune serve" in result.stdout
