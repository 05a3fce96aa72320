"""/metrics: what Prometheus is told of a database with known rows, read with Prometheus' own parser."""

from __future__ import annotations

import math
import threading
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from db import catalog, engine, statistics
from db.engine import make_engine, writing
from db.models import Search
from service.database_metrics import DatabaseMetrics, Rising
from tests.service.support import Driver, architecture, engine_of, opened, submit

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(client: TestClient) -> Samples:
    """Every sample by name and labels. A new reading of the database is made first."""
    for collector in list(client.app.state.service.metrics.registry._collector_to_names):  # type: ignore[attr-defined]
        if isinstance(collector, DatabaseMetrics):
            collector._latest = None
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return samples(answer.text)


def samples(text: str) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


@pytest.fixture
def filled(any_client: TestClient) -> tuple[TestClient, Driver]:
    """Three succeeded trials of 2, 20 and 100,000 s, four failed, two running, one tried again; two searches wait."""
    found = submit(any_client)["id"]
    driver = Driver(engine_of(any_client), found)
    for reduction, seconds, busy in ((1, 2.0, 2.5), (2, 20.0, 23.0), (3, 100_000.0, None)):
        driver.trial(architecture(("se", {"reduction": reduction})), top1=0.9, seconds=seconds, busy_seconds=busy)
    for reduction, kind in ((4, "nan_loss"), (5, "nan_loss"), (6, "out_of_memory")):
        failed = architecture(("se", {"reduction": reduction}))
        driver.trial(failed, status="failed", seconds=7.0, error={"kind": kind, "message": "m"})
    first = driver.trial(architecture(("se", {"reduction": 7})), status="running")
    second = driver.trial(architecture(("se", {"reduction": 8})), status="running")
    driver.retry(first, "killed", times=2)
    driver.retry(second, "timeout")
    driver.place(first, "a")
    with writing(driver.engine) as session:
        catalog.publish_node(session, "a", {"cpus": 4, "gpus": 0, "host": "n1"})
        catalog.publish_node(session, "b", {"cpus": 2, "gpus": 0, "host": "n2", "storage_problem": "another store"})
    waiting = [submit(any_client)["id"] for _ in range(2)]
    with writing(driver.engine) as session:
        past = engine.now(session) - timedelta(seconds=600)
        session.execute(update(Search).where(Search.id == waiting[0]).values(created_at=past))
    return any_client, driver


def test_searches_trials_and_slots(filled: tuple[TestClient, Driver]) -> None:
    found = scrape(filled[0])
    assert value(found, "attune_database_up") == 1
    assert value(found, "attune_queue_length") == 2
    assert value(found, "attune_queue_oldest_seconds") == pytest.approx(600, abs=60)
    assert value(found, "attune_searches", status="queued") == 2
    assert value(found, "attune_searches", status="running") == 1
    assert value(found, "attune_searches", status="failed") == 0
    by_status = {"running": 2, "succeeded": 3, "failed": 3, "stopped": 0, "cancelled": 0, "reused": 0}
    assert {status: value(found, "attune_trials", status=status) for status in by_status} == by_status
    assert value(found, "attune_running_trials") == 1, "the other one has no process yet"
    assert value(found, "attune_nodes") == 2
    assert value(found, "attune_slots", node="a", host="n1") == 4
    assert value(found, "attune_slots", node="b", host="n2") == 0, "it sees another store"
    assert value(found, "attune_node_trials", node="a", host="n1") == 1
    assert value(found, "attune_node_trials", node="b", host="n2") == 0


def test_times_of_trials(filled: tuple[TestClient, Driver]) -> None:
    found = scrape(filled[0])
    assert value(found, "attune_trial_seconds_count") == 3
    assert value(found, "attune_trial_seconds_sum") == pytest.approx(100_022.0)
    for bound, below in ((1.0, 0), (5.0, 1), (15.0, 1), (60.0, 2), (86400.0, 2), (math.inf, 3)):
        text = "+Inf" if bound == math.inf else str(bound)
        assert value(found, "attune_trial_seconds_bucket", le=text) == below
    assert value(found, "attune_trial_overhead_seconds_count") == 2, "of one trial the time in its slot is not known"
    assert value(found, "attune_trial_overhead_seconds_sum") == pytest.approx(3.5)


def test_failures_by_class(filled: tuple[TestClient, Driver]) -> None:
    found = scrape(filled[0])
    assert value(found, "attune_trial_failures_total", kind="nan_loss") == 2
    assert value(found, "attune_trial_failures_total", kind="out_of_memory") == 1
    assert value(found, "attune_trial_retries_total", kind="killed") == 2
    assert value(found, "attune_trial_retries_total", kind="timeout") == 1


def test_leases_that_ran_out_and_drivers_that_died(any_client: TestClient) -> None:
    found = submit(any_client)["id"]
    database = engine_of(any_client)
    driver = Driver(database, found)
    quiet = scrape(any_client)
    assert value(quiet, "attune_lease_losses_total", reason="expired") == 0
    assert value(quiet, "attune_lease_losses_total", reason="died") == 0
    for _ in range(2):
        with writing(database) as session:
            past = engine.now(session) - timedelta(seconds=1)
            session.execute(update(Search).where(Search.id == found).values(lease_expires_at=past))
        driver = Driver(database, found)
    driver.die()
    Driver(database, found).end()
    told = scrape(any_client)
    assert value(told, "attune_lease_losses_total", reason="expired") == 2
    assert value(told, "attune_lease_losses_total", reason="died") == 1


def test_counters_do_not_fall_with_deleted_searches(filled: tuple[TestClient, Driver]) -> None:
    client, driver = filled
    scrape(client)
    driver.end()
    assert client.delete(f"/api/v1/searches/{driver.search_id}").status_code == 204
    found = scrape(client)
    assert value(found, "attune_trials", status="succeeded") == 0
    assert value(found, "attune_trial_seconds_count") == 3
    assert value(found, "attune_trial_seconds_sum") == pytest.approx(100_022.0)
    assert value(found, "attune_trial_failures_total", kind="nan_loss") == 2
    assert value(found, "attune_trial_retries_total", kind="killed") == 2


def test_totals_rise_by_what_is_new() -> None:
    rising = Rising()
    assert rising.all("x", {"a": 5, "b": 1}) == {"a": 5, "b": 1}
    assert rising.all("x", {"a": 2}) == {"a": 5, "b": 1}
    assert rising.all("x", {"a": 6, "b": 1, "c": 2}) == {"a": 9, "b": 2, "c": 2}
    assert rising.one("y", 3) == 3


def test_names_follow_the_conventions(filled: tuple[TestClient, Driver]) -> None:
    """https://prometheus.io/docs/practices/naming: a prefix, base units, _total for counters and nothing else."""
    kinds = {f.name: f.type for f in text_string_to_metric_families(filled[0].get("/metrics").text)}
    assert {"counter", "gauge", "histogram", "summary"} <= set(kinds.values())
    for name, kind in kinds.items():
        assert name.startswith("attune_")
        assert kind != "unknown"
        assert not any(unit in name for unit in ("_ms", "milliseconds", "minutes", "hours", "percent")), name
    text = filled[0].get("/metrics").text
    for line in text.splitlines():
        if line.startswith("# TYPE ") and not line.endswith(" counter"):
            assert not line.split()[2].endswith("_total"), line


def test_requests_are_counted_by_route_and_never_by_path(client: TestClient) -> None:
    submit(client)
    client.get("/no/such/canary")
    client.request("CANARY", "/healthz")
    text = client.get("/metrics").text
    found = samples(text)
    assert value(found, "attune_http_requests_total", method="POST", operation="submit", status="201") == 1
    assert "canary" not in text.lower()


def test_a_storm_of_scrapes_reads_the_database_once(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    collect = statistics.collect
    monkeypatch.setattr(statistics, "collect", lambda *given: reads.append(1) or collect(*given))
    with opened(database_url) as client:
        threads = [threading.Thread(target=lambda: [client.get("/metrics") for _ in range(5)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(reads) == 1


def test_a_slow_database_is_asked_the_less(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    collect = statistics.collect

    def slow(*given: object) -> object:
        now[0] += 2.0
        return collect(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(statistics, "collect", slow)
    database = make_engine(sqlite_url)
    metrics = DatabaseMetrics(database, clock=lambda: now[0])
    list(metrics.collect())
    assert now[0] == 2.0
    now[0] = 41.0
    list(metrics.collect())
    assert now[0] == 41.0, "a reading of 2 s serves for 40 s"
    now[0] = 42.5
    list(metrics.collect())
    assert now[0] == 44.5
    database.dispose()
