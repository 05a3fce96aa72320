"""The table of a search's trials: columns to choose, sorted and filtered in the database, one page at a time."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db import trials
from db.engine import reading
from db.models import ROLES, TRIAL_STATUSES, Trial
from db.paging import Cursor
from service import formats, summaries
from service.strips import make_strip
from service.summaries import Row
from service.trials.schemas import TrialOut

PER_PAGE = 50
EXPORTED_AT_ONCE = 1000
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column that may be shown. sort: what the database sorts by, "" for nothing. wide: left out on a phone."""

    name: str
    title: str
    text: Callable[[Json, Row], str]
    sort: str = ""
    numeric: bool = True
    wide: bool = True


def _loss(value: float | None) -> str:
    return formats.MISSING if value is None else f"{value:.4f}"


def _milliseconds(value: float | None) -> str:
    return formats.MISSING if value is None else f"{value:.2f} ms"


COLUMNS: dict[str, Column] = {
    column.name: column
    for column in (
        Column("top1", "Top-1", lambda item, row: row.top1_text, "top1", wide=False),
        Column("gain", "Gain", lambda item, row: row.gain_text, wide=True),
        Column("macs", "MACs", lambda item, row: row.macs_text, "macs", wide=False),
        Column("extra", "Extra MACs", lambda item, row: row.extra_text),
        Column("params", "Parameters", lambda item, row: row.params_text, "params"),
        Column("top5", "Top-5", lambda item, row: formats.percent(item["top5"]), "top5"),
        Column("loss", "Loss", lambda item, row: _loss(item["loss"]), "loss"),
        Column("test_top1", "Test top-1", lambda item, row: formats.percent(item["test_top1"]), "test_top1"),
        Column("latency_ms", "Latency", lambda item, row: _milliseconds(item["latency_ms"]), "latency_ms"),
        Column("epochs", "Epochs", lambda item, row: f"{row.epochs}/{row.epochs_planned}", "epochs"),
        Column("seconds", "Time", lambda item, row: row.time_text, "seconds"),
        Column("seed", "Seed", lambda item, row: str(item["seed"]), "seed"),
        Column("phase", "Phase", lambda item, row: item["phase"], numeric=False),
    )
}
DEFAULT = ("top1", "gain", "macs", "epochs", "seconds")
SORTS = ("number", *(column.sort for column in COLUMNS.values() if column.sort))


@dataclass(frozen=True)
class View:
    """What the user chose: columns by name, the sort with its direction, filters ("" for none)."""

    columns: tuple[str, ...] = DEFAULT
    sort: str = "-number"
    status: str = ""
    role: str = ""

    @classmethod
    def read(cls, columns: str | None, sort: str | None, status: str | None, role: str | None) -> View:
        """From the address; what is not known there is left at its default, as the address may be an old one."""
        named = tuple(name for name in COLUMNS if columns is not None and name in columns.split(","))
        known = sort if sort is not None and sort.removeprefix("-") in SORTS else "-number"
        return cls(
            DEFAULT if columns is None else named,
            known,
            status if status in TRIAL_STATUSES else "",
            role if role in ROLES else "",
        )

    def query(self, **changes: str) -> dict[str, str]:
        """The address's part that says this view, without what is at its default."""
        given = {"cols": ",".join(self.columns), "sort": self.sort, "status": self.status, "role": self.role} | changes
        usual = {"cols": ",".join(DEFAULT), "sort": "-number", "status": "", "role": ""}
        return {name: value for name, value in given.items() if value != usual.get(name)}

    def sorted_by(self, column: Column) -> str:
        """The sort that a click on the column's head asks for: its better end first, then the other."""
        return column.sort if self.sort == f"-{column.sort}" else f"-{column.sort}"


@dataclass(frozen=True)
class Line:
    """A trial in the table: its row, and the texts of the columns chosen."""

    row: Row
    texts: tuple[str, ...]
    traceback: bool


def lines(
    session: Session, search_id: str, view: View, after: Cursor | None, baseline: Json | None, front: Set[int],
    shape: Sequence[int] | None,
) -> tuple[list[Line], Cursor | None]:  # fmt: skip
    """A page of trials. front: their numbers. Raises NotFound."""
    page = trials.page(
        session, search_id, status=view.status or None, role=view.role or None, sort=view.sort.removeprefix("-"),
        descending=view.sort.startswith("-"), after=after, limit=PER_PAGE,
    )  # fmt: skip
    items = _items(session, page.items)
    on_front = [item["id"] for item in items if item["number"] in front]
    rows = summaries.trial_rows(items, baseline, on_front, shape)
    shown = [COLUMNS[name] for name in view.columns]
    found = [
        Line(row, tuple(column.text(item, row) for column in shown), bool(trial.error))
        for trial, item, row in zip(page.items, items, rows, strict=True)
    ]
    return found, page.next


def _items(session: Session, found: Sequence[Trial]) -> list[dict[str, Any]]:
    known = trials.architectures(session, list({trial.architecture_key for trial in found}))
    return [TrialOut.of(trial, known[trial.architecture_key]).model_dump(mode="json") for trial in found]


FIELDS = {
    "number": "int64", "id": "string", "phase": "string", "role": "string", "status": "string", "placement": "string",
    "key": "string", "seed": "int64", "epochs": "int64", "params": "int64", "macs": "int64", "top1": "float64",
    "top5": "float64", "loss": "float64", "test_top1": "float64", "latency_ms": "float64", "seconds": "float64",
    "reused_from": "string", "error": "string", "started_at": "string", "finished_at": "string",
}  # fmt: skip
"""What is exported, by name, with Arrow's type."""


def _records(engine: Engine, search_id: str, view: View) -> Iterator[list[dict[str, Any]]]:
    """Every trial of the view's filters, in its order, some at a time, each part from a short read."""
    after: Cursor | None = None
    while True:
        with reading(engine) as session:
            page = trials.page(
                session, search_id, status=view.status or None, role=view.role or None,
                sort=view.sort.removeprefix("-"), descending=view.sort.startswith("-"), after=after,
                limit=EXPORTED_AT_ONCE,
            )  # fmt: skip
            yield [_record(item) for item in _items(session, page.items)]
        after = page.next
        if after is None:
            return


def _record(item: Json) -> dict[str, Any]:
    told = {name: item.get(name) for name in FIELDS}
    error = item["error"] and f"{item['error']['kind']}: {item['error']['message']}"
    return told | {"placement": make_strip(item["architecture"]).words, "error": error}


def as_csv(engine: Engine, search_id: str, view: View) -> Iterator[bytes]:
    """RFC 4180 with a head; accuracies are fractions."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(FIELDS))
    writer.writeheader()
    for records in _records(engine, search_id, view):
        writer.writerows({name: _plain(value) for name, value in record.items()} for record in records)
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()


def _plain(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula is given as text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def as_parquet(engine: Engine, search_id: str, view: View) -> Iterator[bytes]:
    """One row group for each thousand trials."""
    import pyarrow as pa  # type: ignore[import-untyped]  # only here: it takes a while to load
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in FIELDS.items()])
    with SpooledTemporaryFile(max_size=16_000_000) as file:
        with pq.ParquetWriter(file, schema) as writer:
            for records in _records(engine, search_id, view):
                writer.write_table(pa.Table.from_pylist(records, schema))
        file.seek(0)
        while part := file.read(1 << 16):
            yield part
