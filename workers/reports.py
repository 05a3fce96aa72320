"""What a trial process tells its driver, made sure of on both sides: plain data that a database takes.

Sessions of plug-ins decide what is in it. A number may come as a scalar of numpy or torch; words lose what a database
refuses; anything else that is not plain is a ReportError, which fails the trial and nothing but the trial.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping, Sequence
from typing import Any

LARGEST = 2**63 - 1
LAST_EPOCH = 2**31 - 1
DEEPEST = 32
LONGEST_NAME = 100
LONGEST_NOTE = 500
"""Characters of one thing that a trial notes."""
_KIND = re.compile(r"[a-z][a-z_.]{0,49}")


class ReportError(ValueError):
    """A trial has told something that cannot be kept; the message says where and why."""


def storable(text: str) -> str:
    """The words without what a database refuses (NUL, lone surrogates)."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def checked(told: Mapping[str, Any]) -> dict[str, Any]:
    """The report as plain data: see `workers.trial_run.TrialRun.step`. Raises ReportError."""
    report = dict(told)
    if "notes" in report:
        report["notes"] = [clean_note(_mapping(note, "notes")) for note in _list(report["notes"], "notes")]
    if "restored" in report:
        report["restored"] = [epoch_of(epoch, "restored") for epoch in _list(report["restored"], "restored")]
    if "epoch" in report:
        report["epoch"] = epoch_of(report["epoch"])
    if report.get("checkpoint") is not None:
        report["checkpoint"] = _whole_numbers(report["checkpoint"], "checkpoint", "epoch", "bytes")
    if "result" in report:
        report["result"] = result_of(report["result"])
    if report.get("weights") is not None:
        report["weights"] = plain(_mapping(report["weights"], "weights"), "weights")
    return report


def clean_note(note: Mapping[str, Any]) -> dict[str, Any]:
    """A note in words that can be kept, whatever it holds: it is not worth a trial."""
    said = {}
    for name, value in note.items():
        try:
            kept = plain(value, name)
        except ReportError:
            kept = storable(repr(value))
        said[storable(str(name))[:LONGEST_NAME]] = kept[:LONGEST_NOTE] if isinstance(kept, str) else kept
    kind = str(said.get("kind"))
    return said | {"kind": kind if _KIND.fullmatch(kind) else "trial.note", "message": str(said.get("message", ""))}


def number(value: Any, where: str) -> float:
    """The number, which may be NaN or infinite. Raises ReportError for anything else."""
    scalar = _scalar(value)
    if isinstance(scalar, bool) or not isinstance(scalar, numbers.Real):
        raise ReportError(f"{where} is {_shown(value)}, not a number.")
    try:
        return float(scalar)
    except OverflowError:
        raise ReportError(f"{where} is too large a number.") from None


def plain(value: Any, where: str, depth: int = DEEPEST) -> Any:
    """The value as JSON holds it, NaN and infinities as None. Raises ReportError."""
    value = _scalar(value)
    if depth < 0:
        raise ReportError(f"{where} is nested too deeply.")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, numbers.Integral):
        return _whole(value, where)
    if isinstance(value, numbers.Real):
        real = float(value)
        return real if math.isfinite(real) else None
    if isinstance(value, Mapping):
        items = value.items()
        return {_name(name, where): plain(item, f"{where}.{name}", depth - 1) for name, item in items}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{index}]", depth - 1) for index, item in enumerate(value)]
    raise ReportError(f"{where} is {_shown(value)}, not plain data.")


def epoch_of(report: Any, where: str = "epoch") -> dict[str, Any]:
    """The numbers of an epoch by name; None where one is not known. Raises ReportError."""
    report = _mapping(report, where)
    told: dict[str, Any] = {}
    for name, value in report.items():
        told[_name(name, where)] = None if value is None else number(value, f"{where}.{name}")
    told["epoch"] = _whole(_scalar(report.get("epoch")), f"{where}.epoch")
    if not 0 < told["epoch"] <= LAST_EPOCH:
        raise ReportError(f"{where}.epoch is {told['epoch']}: epochs count from 1.")
    return told


def result_of(result: Any) -> dict[str, Any]:
    """A trial's result as `workers.orders.Result` takes it; its metrics may be NaN. Raises ReportError."""
    result = _mapping(result, "result")
    metrics = _mapping(result.get("metrics"), "metrics")
    return {
        "metrics": {_name(name, "metrics"): number(value, f"metrics.{name}") for name, value in metrics.items()},
        "epochs": _whole(_scalar(result.get("epochs")), "epochs"),
        "seconds": number(result.get("seconds"), "seconds"),
        "environment": plain(_mapping(result.get("environment"), "environment"), "environment"),
    }


def _whole_numbers(value: Any, where: str, *names: str) -> dict[str, int]:
    value = _mapping(value, where)
    return {name: _whole(_scalar(value.get(name)), f"{where}.{name}") for name in names}


def _whole(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ReportError(f"{where} is {_shown(value)}, not a whole number.")
    if abs(int(value)) > LARGEST:
        raise ReportError(f"{where} has more than 63 bits.")
    return int(value)


def _scalar(value: Any) -> Any:
    """What a scalar of numpy or torch holds; anything else as it is."""
    if isinstance(value, (str, bytes, numbers.Number)) and not hasattr(value, "dtype"):
        return value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ReportError(f"{where} is {_shown(value)}, not names with values.")
    return value


def _list(value: Any, where: str) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise ReportError(f"{where} is {_shown(value)}, not a list.")
    return value


def _name(name: Any, where: str) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or storable(name) != name:
        raise ReportError(f"{where} has a value named {_shown(name)}: names are 1 to {LONGEST_NAME} characters.")
    return name


def _shown(value: Any) -> str:
    """The value as a message shows it."""
    shown = storable(repr(value))
    return f"{shown[:80]} ({type(value).__name__})" if len(shown) <= 80 else f"a {type(value).__name__}"
