"""Which search is taken: the first of the queue that fits on the cluster; the others are told why they wait."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from db import claims, searches
from db.engine import make_engine, reading, writing
from db.models import Search
from workers.claiming import Claimer, room, startable, why_waiting
from workers.dispatcher import listen

SMALL, WITH_GPU = {"cpus": 2.0, "gpus": 0.0}, {"cpus": 2.0, "gpus": 1.0}
Make = Callable[..., str]


@pytest.fixture
def make(engine: Engine) -> Make:
    def make(cpus: float = 1, gpus: float = 0, **more: Any) -> str:
        spec = {"name": "s", "resources": {"cpus": cpus, "gpus": gpus, "concurrent": None}}
        with writing(engine) as session:
            return searches.create(session, name="s", spec=spec, spec_version=1, **more).id

    return make


def reason(engine: Engine, search_id: str) -> str | None:
    with reading(engine) as session:
        return searches.get(session, search_id).waiting_reason


def taken(search: Search | None) -> str | None:
    return None if search is None else search.id


def test_what_does_not_fit_is_passed_over_until_it_does(engine: Engine, make: Make) -> None:
    needs_gpu, first, second = make(gpus=1, priority=9), make(), make()
    claimer = Claimer(engine, 60.0)
    assert taken(claimer.next("me", [SMALL], [SMALL], 9)) == first
    assert taken(claimer.next("me", [SMALL], [SMALL], 1)) is None, "the limit"
    assert taken(claimer.next("me", [SMALL, WITH_GPU], [SMALL, WITH_GPU], 9)) == needs_gpu
    assert taken(claimer.next("me", [SMALL, WITH_GPU], [SMALL, WITH_GPU], 9)) == second
    assert taken(claimer.next("me", [SMALL, WITH_GPU], [SMALL, WITH_GPU], 9)) is None


def test_small_searches_do_not_keep_a_large_one_waiting(engine: Engine, make: Make) -> None:
    make(cpus=1, priority=0)
    large = make(cpus=4, priority=9)
    whole = [{"cpus": 4.0, "gpus": 0.0}]
    less = [{"cpus": 3.0, "gpus": 0.0}]
    assert Claimer(engine, 60.0).next("me", whole, less, 9) is None, "one trial of another search runs"
    assert taken(Claimer(engine, 60.0).next("me", whole, whole, 9)) == large


def test_who_waits_for_a_gpu_holds_back_only_those_that_want_one() -> None:
    one, gpu = {"cpus": 1, "gpus": 0}, {"cpus": 1, "gpus": 1}
    queue = [("a", gpu), ("b", one), ("c", gpu), ("d", {"cpus": 9, "gpus": 0}), ("e", one)]
    assert startable(queue, [{"cpus": 4, "gpus": 0}]) == ["b"]
    assert startable(queue, [{"cpus": 4, "gpus": 1}]) == ["a", "b", "c"]
    assert startable(queue, []) == []


def test_the_reason_names_the_store_where_it_is_to_blame() -> None:
    wanted = {"cpus": 2, "gpus": 0}
    assert "No node of the cluster has 2 CPUs" in why_waiting(wanted, [{"cpus": 1.0, "gpus": 0.0}])
    assert "do not see the store" in why_waiting(wanted, [{**SMALL, "storage_problem": "another store"}])


def test_a_node_with_another_store_is_no_reason_to_start(engine: Engine, make: Make) -> None:
    make()
    assert (
        Claimer(engine, 60.0).next(
            "me", [{**SMALL, "storage_problem": "another store"}], [{**SMALL, "storage_problem": "another store"}], 9
        )
        is None
    )


def test_searches_are_told_why_they_wait_and_that_they_no_longer_do(engine: Engine, make: Make) -> None:
    needs_gpu, fits, obsolete = make(gpus=1), make(), make(waiting_reason="no node yet")
    Claimer(engine, 60.0).explain([SMALL])
    assert reason(engine, needs_gpu) == "No node of the cluster has 1 CPUs and 1 GPUs for a trial."
    assert reason(engine, fits) is None
    assert reason(engine, obsolete) is None
    Claimer(engine, 60.0).explain([WITH_GPU])
    assert reason(engine, needs_gpu) is None


def test_a_search_that_comes_is_found_soon_after_looks_in_vain(engine: Engine, make: Make) -> None:
    claimer = Claimer(engine, 60.0)
    assert claimer.next("me", [SMALL], [SMALL], 9) is None
    made = make()
    deadline = time.monotonic() + 30
    while (found := taken(claimer.next("me", [SMALL], [SMALL], 9))) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found == made


nodes = st.lists(st.fixed_dictionaries({"cpus": st.integers(0, 4), "gpus": st.integers(0, 3)}), max_size=8)


@given(nodes, st.integers(1, 5), st.integers(0, 4))
def test_the_largest_nodes_say_what_fits(nodes: list[dict[str, int]], cpus: int, gpus: int) -> None:
    fits = any(node["cpus"] >= cpus and node["gpus"] >= gpus for node in nodes)
    assert any(cpus <= most_cpus and gpus <= most_gpus for most_cpus, most_gpus in room(nodes)) == fits


def test_a_lease_that_ran_out_while_somebody_held_the_file_is_given_a_chance(
    sqlite_template: Path, tmp_path: Path
) -> None:
    """The driver could not renew it, and waits for the same lock."""
    path = tmp_path / "attune.db"
    path.write_bytes(sqlite_template.read_bytes())
    engine = make_engine(f"sqlite:///{path}")
    with writing(engine) as session:
        searches.create(session, name="s", spec={}, spec_version=1)
    with writing(engine) as session:
        claimed = claims.claim_next(session, "dead", 0.1)
    claimer = Claimer(engine, 60.0)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder, ThreadPoolExecutor(1) as pool:
        holder.execute("BEGIN IMMEDIATE")
        waiting = pool.submit(claimer.take_over, "me")
        time.sleep(1.5)  # longer than the lease, and than anybody waits for a lock in passing
        assert not waiting.done()
        holder.execute("ROLLBACK")
        assert waiting.result(30) is None
    assert taken(claimer.take_over("me")) == taken(claimed)
    engine.dispose()


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_hurries(second: signal.Signals) -> None:
    stopping, hurry = threading.Event(), threading.Event()
    listen(stopping, hurry)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stopping.wait(5)
    assert not hurry.is_set()
    os.kill(os.getpid(), second)
    assert hurry.wait(5)
