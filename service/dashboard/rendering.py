"""Jinja's environment and the headers of a page: everything escaped, nothing inline, nothing from another host."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from search.attention import ATTENTION
from service import formats, summaries
from service.dashboard import assets
from service.dashboard.drawing import draw, sample
from service.strips import level, module_colour, module_name

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_PROCESS = secrets.token_hex(8)
"""In every ETag of a fragment, so that another version of the templates is never taken for this one."""
SHOWN_RATIOS = (16, 8, 4, 2)


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """The template as an answer."""
    html = _environment().get_template(template).render(**values)
    return HTMLResponse(html, status, headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-store"})


def fragment(template: str, key: object, asked: str | None, values: Callable[[], Mapping[str, Any]]) -> Response:
    """The template as an answer, or 304 without rendering it where the browser has what `key` stands for.

    key: everything that the template shows, by its repr. asked: the If-None-Match header. The browser keeps its copy
    for itself and asks each time before it shows it, so that who has signed out sees nothing.
    """
    etag = f'W/"{hashlib.sha256(repr((_PROCESS, key)).encode()).hexdigest()[:24]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if asked == etag:
        return Response(status_code=304, headers=headers)
    answer = page(template, **values())
    answer.headers.update(headers)
    return answer


def rendered(template: str, **values: Any) -> str:
    """The template as text, for a part of a page that comes in JSON."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "draw": draw,
        "age": _age,
        "duration": formats.duration,
        "progress_words": progress_words,
        "progress_rest": progress_rest,
        "confirmed": _confirmed,
        "whole": formats.whole,
        "measure": formats.measure,
        "unbroken": _unbroken,
        "change_unit": formats.change_unit,
        "change_words": formats.change_words,
    }
    samples = [{"ratio": ratio, "drawing": sample(0, level({"reduction": ratio}))} for ratio in SHOWN_RATIOS]
    found.globals |= {
        "asset": assets.url,
        "plotly_style_ids": assets.plotly_style_ids,
        "none_sample": sample(None, 0),
        "strength_samples": samples,
        "roles": summaries.ROLES,
        "noise": summaries.NOISE,
        "modules": {kind: {"name": module_name(kind), "colour": module_colour(kind)} for kind in ATTENTION.names()},
    }
    return found


def _confirmed(number: int, front: Mapping[str, Any]) -> str:
    """A trial's mean on the test split with its standard deviation and seeds, where it was confirmed."""
    shown = [*front["points"], *front["controls"], *([front["baseline"]] if front["baseline"] else [])]
    told = next((point["confirmed"] for point in shown if point["number"] == number), None)
    if told is None:
        return ""
    spread = "" if told["sd"] is None else f" ± {100 * told['sd']:.2f}"
    return f"{100 * told['mean']:.2f}{spread} %, {told['seeds']}"


def _unbroken(text: str) -> str:
    """No line ends within "r = 8"."""
    return text.replace(" = ", "\u00a0=\u00a0")


def _age(moment: str) -> str:
    """How long ago an ISO time was."""
    return formats.age(datetime.fromisoformat(moment), datetime.now(UTC))


def progress_words(search: Mapping[str, Any], planned: int) -> str:
    """The counts of trials in words: 12 of 19 done, 2 running, 1 failed."""
    counts = search["counts"]
    finished = counts["succeeded"] + counts["reused"]
    done = f"{formats.whole(finished)} of {formats.whole(max(planned, counts['total']))} done"
    return ", ".join([done, *_others(counts)])


def progress_rest(search: Mapping[str, Any], seconds_left: float | None) -> str:
    """What is not done yet or went another way, and for how long still."""
    left = [f"about {formats.duration(seconds_left)} left"] if seconds_left else []
    return " · ".join([part for part in (", ".join(_others(search["counts"])),) if part] + left)


def _others(counts: Mapping[str, int]) -> list[str]:
    return [
        f"{formats.whole(counts[name])} {name}"
        for name in ("running", "reused", "stopped", "failed", "cancelled")
        if counts[name]
    ]
