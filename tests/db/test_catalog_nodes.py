"""Nodes as several dispatchers publish them: what has left goes, and what nobody speaks for any more ages out."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine, update

from db import catalog
from db.engine import now, reading, writing
from db.models import Node


def publish(engine: Engine, cluster: str, **documents: dict[str, object]) -> None:
    with writing(engine) as session:
        catalog.publish_nodes(session, cluster, documents, forget_after_seconds=600.0)


def published(engine: Engine) -> dict[str, dict[str, object]]:
    with reading(engine) as session:
        return {node.id: node.document for node in catalog.nodes(session)}


def test_a_node_that_has_left_disappears_and_other_clusters_stay(engine: Engine) -> None:
    publish(engine, "left", a={"cpus": 1}, b={"cpus": 2})
    publish(engine, "right", c={"cpus": 4})
    publish(engine, "left", b={"cpus": 2})
    assert published(engine) == {"b": {"cpus": 2, "cluster": "left"}, "c": {"cpus": 4, "cluster": "right"}}
    publish(engine, "right")
    assert published(engine).keys() == {"b"}


def test_what_one_dispatcher_knows_of_its_node_survives_another_that_does_not(engine: Engine) -> None:
    publish(engine, "one", a={"cpus": 1, "weights": {"w": "1"}, "dispatcher": "first"}, b={"cpus": 2})
    publish(engine, "one", a={"cpus": 1, "dispatcher": "second"}, b={"cpus": 2, "weights": {"w": "2"}})
    assert published(engine)["a"] == {"cpus": 1, "weights": {"w": "1"}, "dispatcher": "second", "cluster": "one"}
    assert published(engine)["b"]["weights"] == {"w": "2"}


def test_nodes_that_nobody_speaks_for_age_out(engine: Engine) -> None:
    publish(engine, "gone", a={"cpus": 1})
    with writing(engine) as session:
        session.execute(update(Node).values(heartbeat_at=now(session) - timedelta(seconds=601)))
    publish(engine, "here", b={"cpus": 1})
    assert published(engine).keys() == {"b"}
