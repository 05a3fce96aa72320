"""A priority that is changed while a search runs is a matter of one look of the dispatcher and one heartbeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from db import searches
from db.engine import writing
from workers.dispatcher import Dispatcher
from workers.ray_cluster import RayCluster
from workers.settings import WorkerSettings

SPEC: dict[str, Any] = {"space": {"modules": ["none", "se"], "reduction": [2, 4]}, "budget": {"trials": 50}}
NODES: list[dict[str, object]] = [{"id": "a", "host": "a", "cpus": 12.0, "gpus": 0.0, "memory_bytes": 0}]


def quotas(lab, *search_ids):
    return [lab.search(search_id).quota for search_id in search_ids]


def test_a_priority_that_is_changed_moves_slots_at_the_next_look(lab, tmp_path: Path) -> None:
    settings = WorkerSettings(home=tmp_path)
    dispatcher = Dispatcher(settings, lab.engine, RayCluster(settings))
    one, other = lab.submit(**SPEC), lab.submit(**SPEC)
    runs = [lab.start(lab.claim()) for _ in (one, other)]
    dispatcher._look(NODES)
    assert quotas(lab, one, other) == [6, 6]
    with writing(lab.engine) as session:
        searches.edit(session, one, priority=9)
        searches.edit(session, other, priority=4)
    dispatcher._look(NODES)
    assert quotas(lab, one, other) == [8, 4]
    for run, quota in zip(runs, (8, 4), strict=True):
        search = run.ledger.heartbeat(60.0)  # with which the driver learns it
        assert search is not None
        run.set_quota(search.quota)
        for _ in range(quota):
            assert not run.full
            assert run.next().trial_id
        assert run.full


def test_one_more_search_would_get_its_share_of_what_runs_already(lab, tmp_path: Path) -> None:
    settings = WorkerSettings(home=tmp_path)
    dispatcher = Dispatcher(settings, lab.engine, RayCluster(settings))
    assert dispatcher._share_of_one_more(NODES) == 12
    lab.submit(**SPEC)
    lab.start(lab.claim())
    dispatcher._look(NODES)
    assert dispatcher._share_of_one_more(NODES) == 6
