"""Numbers as people read them, the same on the page and in the terminal."""

from __future__ import annotations

from datetime import datetime

from search.metrics import METRICS

MISSING = "–"
_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def scaled(value: float | None, unit: str = "") -> str:
    """Three significant digits with a metric prefix: 5.21 MMAC, 70.1 k."""
    if value is None:
        return MISSING
    for factor, prefix in _SCALES:
        if abs(value) >= factor * 0.9995:
            return f"{_three(value / factor)} {prefix}{unit}"
    return f"{_three(value) if value % 1 else int(value)} {unit}".rstrip()


def macs(value: float | None) -> str:
    return scaled(value, "MAC")


def measure(value: float, name: str) -> str:
    """A value of a metric (its key in METRICS): 80.00 %, 5.21 MMAC, 3.142 ms."""
    metric = METRICS[name]
    if metric.kind == "cost":
        return scaled(value, metric.unit)
    return f"{value:.4g} {metric.unit}" if metric.unit else percent(value)


def percent(fraction: float | None, digits: int = 2) -> str:
    """0.9432 → 94.32 %."""
    return MISSING if fraction is None else f"{100 * fraction:.{digits}f} %"


def change(gain: float | None, name: str) -> str:
    """A gain of a metric (positive where better) as its own change: +1.23 (points), −0.021 (nat, less is better)."""
    if gain is None:
        return MISSING
    metric = METRICS[name]
    own = gain if metric.goal == "max" else -gain
    return signed(own, 3) if metric.unit else points(own)


def change_unit(name: str) -> str:
    """What `change` is in: the metric's unit, points of a fraction."""
    return METRICS[name].unit or "points"


def change_words(name: str) -> str:
    """What `change` is about: validation cross-entropy, in nat; less is better."""
    metric = METRICS[name]
    title = metric.title[:1].lower() + metric.title[1:]
    return f"{title}, in {change_unit(name)}{'; less is better' if metric.goal == 'min' else ''}"


def points(gain: float | None) -> str:
    """A difference of two fractions in percentage points: 0.0123 → +1.23."""
    return MISSING if gain is None else signed(100 * gain, 2)


def relative(value: float | None, base: float | None) -> str:
    """How much more than `base`, in per cent."""
    if value is None or not base:
        return MISSING
    change = 100 * (value - base) / base
    return f"{signed(change, 0 if abs(change) >= 100 else 1 if abs(change) >= 10 else 2)} %"


def signed(value: float, digits: int) -> str:
    """With its sign, a true minus, and a plain zero."""
    text = f"{abs(value):.{digits}f}"
    if not float(text):
        return f"±{text}"
    return f"{'+' if value > 0 else '−'}{text}"


def duration(seconds: float | None) -> str:
    """42 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds is None:
        return MISSING
    whole = max(0, round(seconds))
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{whole} s"


def roughly(seconds: float | None) -> str:
    """An estimate without figures that it cannot have: about 12 min, about 3 h 10 min, about 40 s."""
    if seconds is None:
        return MISSING
    step = next((step for limit, step in ((120, 5), (600, 30), (7200, 60), (36000, 600)) if seconds < limit), 3600)
    return f"about {duration(max(step, step * round(seconds / step)))}"


def age(then: datetime | None, now: datetime) -> str:
    """How long ago, in one unit."""
    if then is None:
        return MISSING
    seconds = (now - then).total_seconds()
    if seconds < 5:
        return "just now"
    return f"{duration(seconds).split(' ')[0]} {duration(seconds).split(' ')[1]} ago"


def whole(number: int) -> str:
    """With a narrow space between thousands: 100 000."""
    return f"{number:,}".replace(",", "\u202f")


def plural(count: int, noun: str) -> str:
    """1 trial, 2 trials, 0 trials."""
    return f"{whole(count)} {noun if count == 1 else noun + ('es' if noun.endswith('ch') else 's')}"


def _three(value: float) -> str:
    size = abs(value)
    return f"{value:.0f}" if size >= 99.95 else f"{value:.1f}" if size >= 9.995 else f"{value:.2f}"
