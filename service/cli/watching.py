"""Follows a search: a live display in a terminal, one line per finished trial elsewhere."""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from service import formats
from service.cli.drawing import front_report
from service.cli.failures import OK, SEARCH_FAILED
from service.client import FINISHED, Client
from service.event_stream import Event
from service.problems import AttuneError
from service.summaries import FrontView, front_view, input_shape, planned_trials

Json = dict[str, Any]
REFRESH_SECONDS = 1.0
INTERRUPTED = 130


class Follower:
    """What is known of a search, kept up to date by its events above `after`, which a thread reads."""

    def __init__(self, client: Client, search: Json, after: int = 0) -> None:
        self.client = client
        self.search = search
        self.after = after
        self.progress: Json = {}
        self.view: FrontView | None = None
        self.running: dict[str, Json] = {}
        self.controls = 0
        self.updated = time.monotonic()
        self._stale = False
        self._shape: tuple[int, int, int] | None = None
        self._news: queue.Queue[Event | AttuneError | None] = queue.Queue()
        self._thread = threading.Thread(target=self._listen, name="events", daemon=True)

    def follow(self, show: Callable[[list[Event]], None], stopping: threading.Event | None = None) -> Json:
        """Calls `show` with every batch of events until the search has ended, and gives it as it ended.

        KeyboardInterrupt when `stopping` is set, as Ctrl-C would without a handler of its own.
        """
        self._thread.start()
        self.update()
        show([])
        ended = False
        while not ended:
            batch, ended = self._batch()
            if stopping is not None and stopping.is_set():
                raise KeyboardInterrupt
            for event in batch:
                self._note(event)
            if batch or ended or self._stale:
                self._update_if_up()
            show(batch)
        if self._stale:
            self.update()
        return self.search

    def _update_if_up(self) -> None:
        """A service that restarts is waited for; the thread that listens gives up after a while."""
        try:
            self.update()
        except AttuneError as error:
            if not error.unreachable:
                raise
            self._stale = True
        else:
            self._stale = False

    def update(self) -> None:
        """Reads search, progress and front again."""
        found = self.client.search(self.search["id"])
        self.search = found
        self.progress = self.client.progress(found["id"])
        self.updated = time.monotonic()
        if self._shape is None:
            self._shape = input_shape(found["spec"], self.client.catalog("datasets")["items"])
        self.view = front_view(self.client.front(found["id"]), self._shape)
        self.controls = max(self.controls, len(list(self.client.trials(found["id"], phase="controls"))))

    @property
    def planned(self) -> int:
        planned = planned_trials(self.search["spec"], self.search["phase"], self.controls)
        return max(planned, int(self.search["counts"]["total"]))

    def _listen(self) -> None:
        try:
            # a client of its own: the other one may be closed while this thread waits for an event
            with Client(self.client.url) as client:
                for event in client.events(self.search["id"], str(self.after) if self.after else None):
                    self._news.put(event)
            self._news.put(None)
        except AttuneError as error:
            self._news.put(error)

    def _batch(self) -> tuple[list[Event], bool]:
        """Events of about a second; True when there are no more. Raises AttuneError when the stream is lost."""
        batch: list[Event] = []
        deadline = time.monotonic() + REFRESH_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            try:
                news = self._news.get(timeout=left)
            except queue.Empty:
                break
            if news is None:
                return batch, True
            if isinstance(news, AttuneError):
                raise news
            batch.append(news)
        return batch, False

    def _note(self, event: Event) -> None:
        trial = event.data.get("trial_id") or event.data.get("id")
        if trial is None:
            return
        if event.kind == "trial.finished":
            self.running.pop(trial, None)
        elif event.kind.startswith("trial."):
            self.running[trial] = {**self.running.get(trial, {}), **event.data}


def follow(
    client: Client, search: Json, *, as_json: bool = False, only_new: bool = False,
    stopping: threading.Event | None = None,
) -> int:  # fmt: skip
    """Shows the search until it has ended and gives the exit code.

    as_json: one event per line, then the search. only_new: without what had happened before `search` was read.
    stopping: ends the display, where signals have another handler.
    """
    follower = Follower(client, search, search["last_event"] if only_new else 0)
    try:
        if as_json:
            ended = follower.follow(_print_events, stopping)
            typer.echo(json.dumps(ended))
        elif sys.stdout.isatty():
            ended = _follow_live(follower, stopping)
        else:
            ended = follower.follow(_Lines(follower), stopping)
    except KeyboardInterrupt:
        if stopping is None:
            typer.echo(f"\nThe search goes on. Stop it: attune cancel {search['id']}", err=True)
        return INTERRUPTED
    if not as_json:
        _report(follower)
    return OK if ended["status"] == "succeeded" else SEARCH_FAILED


def _print_events(batch: list[Event]) -> None:
    for event in batch:
        typer.echo(json.dumps({"id": event.id, "event": event.kind, "data": event.data}))


def _report(follower: Follower) -> None:
    """How it ended, and the front."""
    console = Console(highlight=False)
    search, view = follower.search, follower.view
    elapsed = formats.duration(follower.progress["elapsed_seconds"])
    console.print(Text(f"\n{search['name']}: {search['status']} after {elapsed}", style="bold"))
    if search["error"]:
        console.print(Text(str(search["error"].get("message")), style="red"))
    if view is not None:
        console.print()
        console.print(front_report(view))


class _Lines:
    """Plain lines, for a log."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._status = ""
        self._done = _done(follower.search) if follower.after else 0

    def __call__(self, batch: list[Event]) -> None:
        if self._follower.search["status"] != self._status:
            self._status = self._follower.search["status"]
            if self._status not in FINISHED:
                typer.echo(f"{self._status}: {self._follower.search['name']}")
        for event in batch:
            if event.kind == "trial.finished":
                self._done += 1
                left = self._follower.progress.get("seconds_left")
                rest = f"  · {formats.roughly(left)} left" if left else ""
                typer.echo(f"[{self._done}/{self._follower.planned}] {_trial_line(event.data)}{rest}")


def _done(search: Json) -> int:
    return int(search["counts"]["total"] - search["counts"]["running"])


def _trial_line(data: Json) -> str:
    head, label = f"trial {data.get('number')}", data.get("label", "")
    if data.get("status") not in ("succeeded", "reused"):
        why = (data.get("error") or {}).get("message")
        return f"{head}  {data.get('status')}{f': {why}' if why else ''}  {label}"
    again = "  (reused)" if data["status"] == "reused" else ""
    return f"{head}  {formats.percent(data.get('top1'))}  {formats.macs(data.get('macs'))}  {label}{again}"


def _follow_live(follower: Follower, stopping: threading.Event | None) -> Json:
    console = Console(highlight=False)
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        return follower.follow(lambda batch: live.update(_Display(follower)), stopping)


class _Display:
    """The live display; it draws itself anew on every refresh, so that the clock runs between events."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    def __rich__(self) -> RenderableType:
        follower = self._follower
        search, view = follower.search, follower.view
        parts: list[RenderableType] = [self._head(search), self._bar(search), Text()]
        parts += [
            _running_line(data) for data in sorted(follower.running.values(), key=lambda d: int(d.get("number") or 0))
        ]
        if view is not None and view.rows:
            parts += [Text(), front_report(view, finished=False)]
        return Group(*parts)

    def _head(self, search: Json) -> RenderableType:
        started = self._follower.progress.get("elapsed_seconds")
        elapsed = formats.duration((started or 0) + time.monotonic() - self._follower.updated)
        left = self._follower.progress.get("seconds_left")
        text = f"{search['status']}{', ' + search['phase'] if search['phase'] else ''} · {elapsed}"
        text += f" · {formats.roughly(left)} left" if left else ""
        grid = Table.grid(padding=(0, 1))
        grid.add_row(Spinner("dots"), Text(search["name"], style="bold"), Text(text, style="bright_black"))
        return grid

    def _bar(self, search: Json) -> RenderableType:
        counts, planned = search["counts"], self._follower.planned
        grid = Table.grid(padding=(0, 2))
        others = [f"{counts[name]} {name}" for name in ("reused", "stopped", "failed") if counts[name]]
        words = ", ".join([f"{_done(search)}/{planned} trials", *others])
        grid.add_row(ProgressBar(total=planned, completed=_done(search), width=36, complete_style="green"), words)
        return grid


def _running_line(data: Json) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    epoch, planned = int(data.get("epoch") or 0), int(data.get("epochs_planned") or 0)
    top1 = formats.percent(data["top1"]) if data.get("top1") is not None else ""
    bar = ProgressBar(total=max(planned, 1), completed=epoch, width=12)
    grid.add_row(
        f"  #{data.get('number', '?')}", bar, top1.rjust(8), Text(str(data.get("label", "")), style="bright_black")
    )
    return grid
