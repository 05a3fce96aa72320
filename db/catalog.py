"""What the workers publish for the service: data sets, nodes; and the costs of modules at sites, counted once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from db import checks
from db.clock import DatabaseTime
from db.errors import NotFound
from db.models import Dataset, Node, SiteCost
from db.upserts import insert_into


@dataclass(frozen=True)
class PublishedDataset:
    """A data set as a worker found it on its disk: `document` holds shape, classes, sizes."""

    name: str
    fingerprint: str
    document: Mapping[str, Any]


def publish_datasets(
    session: Session, entries: Sequence[PublishedDataset], *, published_by: str, keep: Sequence[str] = ()
) -> None:
    """Makes the catalog of `published_by` these entries: new and changed ones are written, missing ones removed.

    keep: names whose rows stay as they are, where there are any.
    """
    gone = delete(Dataset).where(Dataset.published_by == published_by)
    gone = gone.where(Dataset.name.not_in([*keep, *(entry.name for entry in entries)]))
    session.execute(gone.execution_options(synchronize_session=False))
    for entry in sorted(entries, key=lambda entry: entry.name):  # one order for all publishers: no deadlocks
        values = {
            "name": entry.name,
            "document": dict(entry.document),
            "fingerprint": entry.fingerprint,
            "published_by": published_by,
            "published_at": DatabaseTime(),
        }
        _replace(session, Dataset, checks.row(Dataset, values), "name")


def datasets(session: Session) -> list[Dataset]:
    """All data sets that workers have, by name."""
    return list(session.scalars(select(Dataset).order_by(Dataset.name)))


def dataset(session: Session, name: str) -> Dataset:
    """The data set. Raises NotFound."""
    found = session.scalars(select(Dataset).where(Dataset.name == name)).one_or_none()
    if found is None:
        raise NotFound("data set", name)
    return found


def publish_node(session: Session, node_id: str, document: Mapping[str, Any]) -> None:
    """Writes a machine's CPUs, GPUs and slots, and its heartbeat."""
    values = {"id": node_id, "document": dict(document), "heartbeat_at": DatabaseTime()}
    _replace(session, Node, checks.row(Node, values), "id")


def publish_nodes(
    session: Session, cluster: str, documents: Mapping[str, Mapping[str, Any]], *, forget_after_seconds: float
) -> None:
    """Makes the nodes of `cluster` these, by id, with a heartbeat; those it no longer has are removed.

    Several dispatchers publish the same nodes, and some facts only the one on that node knows: what a document does
    not say stays as it was. Nodes of any cluster that nobody has spoken of for `forget_after_seconds` are removed.
    """
    of_cluster = select(Node).where(Node.document["cluster"].as_string() == cluster).order_by(Node.id)
    rows = session.scalars(of_cluster.with_for_update(), execution_options={"populate_existing": True})
    known = {row.id: row.document for row in rows}
    for node_id in sorted(documents):  # one order for all publishers: no deadlocks
        publish_node(session, node_id, {**known.get(node_id, {}), **documents[node_id], "cluster": cluster})
    for node_id in sorted(known.keys() - documents.keys()):
        forget_node(session, node_id)
    silent = delete(Node).where(Node.heartbeat_at <= DatabaseTime(-forget_after_seconds))
    session.execute(silent.execution_options(synchronize_session=False))


def nodes(session: Session, *, seen_within_seconds: float | None = None) -> list[Node]:
    """The machines, by id; with a limit, only those that have been heard of within it."""
    statement = select(Node).order_by(Node.id)
    if seen_within_seconds is not None:
        statement = statement.where(Node.heartbeat_at > DatabaseTime(-seen_within_seconds))
    return list(session.scalars(statement))


def forget_node(session: Session, node_id: str) -> None:
    """Removes a machine that has left."""
    session.execute(delete(Node).where(Node.id == node_id).execution_options(synchronize_session=False))


def get_costs(session: Session, keys: Iterable[str]) -> dict[str, tuple[int, int]]:
    """(params, macs) of the keys that are known."""
    wanted = list(dict.fromkeys(keys))
    found: dict[str, tuple[int, int]] = {}
    for start in range(0, len(wanted), 500):
        part = select(SiteCost).where(SiteCost.key.in_(wanted[start : start + 500]))
        found |= {row.key: (row.params, row.macs) for row in session.scalars(part)}
    return found


def put_cost(session: Session, key: str, params: int, macs: int) -> None:
    """Keeps a cost. Counts never change, so a key that is there stays as it is."""
    put_costs(session, {key: (params, macs)})


def put_costs(session: Session, costs: Mapping[str, tuple[int, int]]) -> None:
    """Keeps several costs at once."""
    rows = [
        checks.row(SiteCost, {"key": key, "params": params, "macs": macs})
        for key, (params, macs) in sorted(costs.items())
    ]
    if rows:
        session.execute(insert_into(session, SiteCost).on_conflict_do_nothing(index_elements=["key"]), rows)


def _replace(session: Session, model: type[Dataset] | type[Node], values: Mapping[str, Any], key: str) -> None:
    statement = insert_into(session, model).values(**values)
    changed = {name: statement.excluded[name] for name in values if name != key}
    session.execute(statement.on_conflict_do_update(index_elements=[key], set_=changed))
