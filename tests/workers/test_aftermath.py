"""Messages about schedules, to a real HTTP server and a real mail server of this machine; and what is cleared away."""

from __future__ import annotations

import hashlib
import hmac
import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy import text as sql
from structlog.testing import capture_logs

from db import claims, deliveries, schedules, searches, trials
from db.clock import DatabaseTime
from db.engine import now as database_now
from db.engine import reading, writing
from db.models import Delivery, Fire, Search
from search import hooks
from tests.workers.test_secure_messages import trickling
from workers import aftermath, messages
from workers.aftermath import Aftermath, retry_seconds
from workers.messages import Message, UndeliveredError, send, text
from workers.settings import WorkerSettings

SECRET = "canary-6f1d-long-enough"
PAYLOAD = {"event": "test", "message": "A test.", "schedule": {"id": "s", "name": "weekly"}}
BOUNDS = {"objectives": [
    {"metric": "top1", "goal": "max", "best": 1.0, "worst": 0.0},
    {"metric": "macs", "goal": "min", "best": 0, "worst": 1000},
]}  # fmt: skip


@dataclass
class Receiver:
    """What a web hook's server has got, and what it answers: statuses in turn, the last one for ever."""

    url: str = ""
    statuses: list[int] = field(default_factory=lambda: [204])
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            status = found.statuses.pop(0) if len(found.statuses) > 1 else found.statuses[0]
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"{found.url}/elsewhere")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    found.url = f"http://hook.test:{server.server_port}"
    yield found
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    """hook.test is this machine, inside.test a private one, both.test one of each."""
    known = {"hook.test": ["127.0.0.1"], "inside.test": ["10.0.0.7"], "both.test": ["93.184.215.14", "10.0.0.7"]}

    def resolve(host: str, port: int, seconds: float = 0) -> list[str]:
        if hooks.literal(host) is not None:
            return [host]
        if host not in known:
            raise hooks.UnresolvedError("The host's name has no address.")
        return known[host]

    monkeypatch.setattr(hooks, "resolved", resolve)


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    return WorkerSettings(home=tmp_path, hook_hosts="hook.test")


def hook(url: str, **more: Any) -> Message:
    return Message(**{"id": "d1", "channel": "webhook", "target": url, "event": "test", "payload": PAYLOAD,
                      "secret": SECRET, **more})  # fmt: skip


def test_a_web_hook_is_signed_over_its_time_and_body(receiver: Receiver, settings: WorkerSettings) -> None:
    send(hook(f"{receiver.url}/path?x=1"), settings)
    ((headers, body),) = receiver.got
    assert json.loads(body) == PAYLOAD
    parts = dict(part.split("=") for part in headers["attune-signature"].split(","))
    expected = hmac.new(SECRET.encode(), parts["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(parts["v1"], expected)
    assert abs(time.time() - int(parts["t"])) < 60
    assert headers["host"] == receiver.url.removeprefix("http://")
    assert (headers["attune-event"], headers["attune-delivery"]) == ("test", "d1")


def test_redirects_are_not_followed(receiver: Receiver, settings: WorkerSettings) -> None:
    receiver.statuses = [302]
    with pytest.raises(UndeliveredError, match="redirects") as error:
        send(hook(receiver.url), settings)
    assert error.value.lasting
    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    "url",
    ["https://inside.test/", "https://both.test/", "https://127.0.0.1/", "https://[fe80::1]/", "https://0.0.0.0/",
     "https://[::ffff:127.0.0.1]/", "https://[64:ff9b::a00:7]/", "https://[2002:7f00:1::]/", "https://169.254.169.254/",
     "https://100.64.0.1/", "http://93.184.215.14/"],
)  # fmt: skip
def test_private_addresses_and_plain_http_are_refused(url: str, settings: WorkerSettings) -> None:
    with pytest.raises(UndeliveredError) as error:
        send(hook(url), settings)
    assert error.value.lasting
    assert "10.0.0.7" not in str(error.value)


def test_a_host_that_the_operator_does_not_list_is_not_reached(receiver: Receiver, tmp_path: Path) -> None:
    with pytest.raises(UndeliveredError):
        send(hook(receiver.url.replace("http:", "https:")), WorkerSettings(home=tmp_path))
    assert receiver.got == []


class MailServer(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as smtplib speaks."""

    letters: list[tuple[str, str, str]] = []

    def handle(self) -> None:
        self._say(220, "ready")
        sender = recipient = ""
        while line := self.rfile.readline().decode().strip():
            verb = line[:4].upper()
            if verb in ("EHLO", "HELO"):
                self._say(250, "hello")
            elif verb == "MAIL":
                sender = line.partition("<")[2].partition(">")[0]
                self._say(250, "ok")
            elif verb == "RCPT":
                recipient = line.partition("<")[2].partition(">")[0]
                self._say(550 if recipient.startswith("nobody") else 250, "so")
            elif verb == "DATA":
                self._say(354, "go on")
                lines = []
                while (part := self.rfile.readline().decode().rstrip("\r\n")) != ".":
                    lines.append(part)
                self.letters.append((sender, recipient, "\n".join(lines)))
                self._say(250, "taken")
            elif verb == "QUIT":
                self._say(221, "bye")
                return
            else:
                self._say(250, "ok")

    def _say(self, code: int, text: str) -> None:
        self.wfile.write(f"{code} {text}\r\n".encode())


@pytest.fixture
def mail(tmp_path: Path) -> Iterator[WorkerSettings]:
    MailServer.letters = []
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), MailServer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield WorkerSettings(
        home=tmp_path, smtp_host="127.0.0.1", smtp_port=server.server_address[1], smtp_security="none",
        smtp_from="attune@lab.example", hook_hosts="hook.test",
    )  # fmt: skip
    server.shutdown()
    server.server_close()
    thread.join(5)


def letter(target: str) -> Message:
    return Message("d2", "email", target, "finished", PAYLOAD | {"message": "“Wöchentlich” is done."}, None)


def test_a_letter_arrives(mail: WorkerSettings) -> None:
    send(letter("team@lab.example"), mail)
    ((sender, recipient, raw),) = MailServer.letters
    found = message_from_bytes(raw.encode())
    assert (sender, recipient) == ("attune@lab.example", "team@lab.example")
    assert found["Subject"] == "attune: weekly: finished"
    sent = parsedate_to_datetime(found["Date"])
    assert abs(sent.timestamp() - time.time()) < 60
    assert "“Wöchentlich” is done." in found.get_payload(decode=True).decode()  # type: ignore[union-attr]


def test_a_letter_lists_what_has_changed() -> None:
    point = {"label": "SE at 1.1", "values": {"top1": 0.8125, "macs": 1200000}}
    comparison = {
        "summary": "The front has moved forward.",
        "entered": [{"site": "1.1.residual", "modules": "se", "architectures": 2}],
        "left": [{"site": f"{n}.1.residual", "modules": "cbam", "architectures": 1} for n in range(25)],
        "gained": [point], "lost": [],
    }  # fmt: skip
    search = {"name": "s", "status": "failed", "id": "i", "error": {"kind": "error", "message": "out of luck"}}
    told = text(Message("d", "email", "a@b.example", "failed",
                        PAYLOAD | {"search": search, "comparison": comparison}, None))  # fmt: skip
    assert "Error: out of luck" in told
    assert "Placements that entered the front:\n  1.1.residual se (in 2)\n" in told
    assert "Architectures gained:\n  SE at 1.1: top1 0.8125, macs 1.2e+06\n" in told
    assert "  and 5 more" in told
    assert "lost" not in told


def test_a_refused_recipient_and_a_missing_server_are_told(mail: WorkerSettings, tmp_path: Path) -> None:
    with pytest.raises(UndeliveredError, match="refuses the address"):
        send(letter("nobody@lab.example"), mail)
    with pytest.raises(UndeliveredError, match="ATTUNE_SMTP_HOST") as error:
        send(letter("team@lab.example"), WorkerSettings(home=tmp_path))
    assert error.value.lasting


class Scene:
    """A schedule whose searches end as the test says."""

    def __init__(self, engine: Engine, notify: list[dict[str, Any]], keep: int | None = None) -> None:
        self.engine = engine
        with writing(engine) as session:
            self.schedule = schedules.create(
                session, name="weekly", cron="0 2 * * 0", zone="UTC", template={}, next_fire_at=None, notify=notify,
                keep=keep,
            ).id  # fmt: skip

    def fired(self, key: str, top1: float, status: str = "succeeded") -> str:
        """A fire whose search has trained one architecture, confirmed with three seeds, and ended."""
        with writing(self.engine) as session:
            at = database_now(session)
            made = searches.create(
                session, name="s", spec={}, spec_version=1, schedule_id=self.schedule, fire_at=at
            ).id  # fmt: skip
            schedules.record_fire(session, self.schedule, at, "fired", search_id=made)
            found = claims.claim_next(session, "driver", 600.0)
            assert found is not None
            searches.set_progress(session, made, found.attempt, bounds=BOUNDS)
            trials.put_architecture(session, key, backbone="b", document={"placements": {}}, label=key)
            for phase, seed in (("explore", 0), ("confirm", 1), ("confirm", 2), ("confirm", 3)):
                row = trials.add(
                    session, made, found.attempt, phase=phase, architecture_key=key, seed=seed, role="explore",
                    epochs_planned=1, params=1, macs=500,
                )  # fmt: skip
                metrics = {"top1": top1 + 0.001 * seed}
                trials.finish(session, row.id, found.attempt, status="succeeded", metrics=metrics, epochs=1)
            claims.release(session, made, found.attempt, status, error={"kind": "x", "message": "out of luck"})
        return made

    def deliveries(self) -> list[Delivery]:
        with reading(self.engine) as session:
            return list(session.scalars(select(Delivery).order_by(Delivery.id)))

    def searches(self) -> list[str]:
        with reading(self.engine) as session:
            return list(session.scalars(select(Search.id).order_by(Search.fire_at)))


def test_finished_failed_and_improved_are_told_once_to_who_asked(
    engine: Engine, receiver: Receiver, mail: WorkerSettings
) -> None:
    target = {"channel": "webhook", "target": receiver.url, "events": ["finished", "failed", "improved"]}
    letters = {"channel": "email", "target": "team@lab.example", "events": ["failed"], "secret": None}
    scene = Scene(engine, [{**target, "secret": SECRET}, letters])
    rounds = Aftermath(engine, mail)
    for key, top1, status in (("a", 0.5, "succeeded"), ("a", 0.5, "succeeded"), ("b", 0.7, "succeeded"),
                              ("b", 0.1, "failed"), ("b", 0.1, "cancelled")):  # fmt: skip
        scene.fired(key, top1, status)
        with capture_logs() as logs:
            _look(rounds)
            _look(rounds)
        assert SECRET not in str(logs)
    told = [json.loads(body) for _, body in receiver.got]
    assert [each["event"] for each in told] == ["finished", "finished", "finished", "improved", "failed"]
    assert told[0]["comparison"] is None
    assert told[1]["comparison"]["moved"]["verdict"] == "unchanged"
    assert "moved forward" in told[3]["comparison"]["summary"]
    assert told[3]["comparison"]["hypervolume"]["change"] == pytest.approx(0.1)
    assert told[4]["search"]["error"]["message"] == "out of luck"
    assert [recipient for _, recipient, _ in MailServer.letters] == ["team@lab.example"]
    assert {row.status for row in scene.deliveries()} == {"sent"}
    assert SECRET not in str([row.payload for row in scene.deliveries()])


def test_a_message_is_tried_again_later_and_given_up_at_last(
    engine: Engine, receiver: Receiver, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(engine, [{"channel": "webhook", "target": receiver.url, "events": ["finished"], "secret": SECRET}])
    receiver.statuses = [500, 503, 200]
    scene.fired("a", 0.5)
    rounds = Aftermath(engine, settings)
    _look(rounds)
    _look(rounds)
    (row,) = scene.deliveries()
    assert (row.status, row.attempts, row.last_error) == ("pending", 1, "The host answered 500.")
    for _ in range(3):
        _make_due(engine)
        _look(rounds)
    (row,) = scene.deliveries()
    assert (row.status, row.attempts, row.last_error) == ("sent", 3, None)
    assert row.sent_at is not None
    assert len({headers["attune-delivery"] for headers, _ in receiver.got}) == 1
    receiver.statuses = [500]
    monkeypatch.setattr(aftermath, "MOST_ATTEMPTS", 2)
    scene.fired("a", 0.5)
    for _ in range(4):
        _look(rounds)
        _make_due(engine)
    assert [(row.status, row.attempts) for row in scene.deliveries()] == [("sent", 3), ("failed", 2)]


def _make_due(engine: Engine) -> None:
    with writing(engine) as session:
        pending = update(Delivery).where(Delivery.status == "pending")
        session.execute(pending.values(next_attempt_at=DatabaseTime(-1)))


def test_waits_grow_up_to_an_hour() -> None:
    assert [retry_seconds(attempts) for attempts in (1, 2, 3, 7, 10)] == [10, 30, 90, 3600, 3600]


def test_a_message_taken_by_a_sender_that_died_is_taken_again(engine: Engine) -> None:
    scene = Scene(engine, [])
    with writing(engine) as session:
        deliveries.add(session, scene.schedule, channel="email", target="a@b.example", event="test", payload={})
    with writing(engine) as session:
        assert deliveries.take(session, 120.0) is not None
    with writing(engine) as session:
        assert deliveries.take(session, 120.0) is None
    _make_due(engine)
    with writing(engine) as session:
        again = deliveries.take(session, 120.0)
    assert again is not None
    assert again.attempts == 2


def test_only_so_many_ended_searches_are_kept_and_their_fires_stay(engine: Engine, settings: WorkerSettings) -> None:
    scene = Scene(engine, [], keep=2)
    rounds = Aftermath(engine, settings)
    made = []
    for _ in range(4):
        made.append(scene.fired("a", 0.5))
        _look(rounds)
    assert scene.searches() == made[2:]
    with reading(engine) as session:
        fires = schedules.fires(session, scene.schedule).items
        assert [fire.search_id for fire in fires] == [made[3], made[2], None, None]
        assert all(fire.settled_at is not None for fire in fires)
        assert session.scalars(select(Fire.comparison).order_by(Fire.fire_at.desc())).first() is not None


def test_the_last_good_result_is_kept_whatever_has_ended_since(engine: Engine, settings: WorkerSettings) -> None:
    scene = Scene(engine, [], keep=1)
    rounds = Aftermath(engine, settings)
    made = []
    for status in ("succeeded", "succeeded", "failed", "cancelled"):
        made.append(scene.fired("a", 0.5, status))
        _look(rounds)
    assert scene.searches() == [made[1], made[3]]


def test_a_comparison_holds_up_no_writer_and_its_failure_no_message(
    engine: Engine, settings: WorkerSettings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(engine, [{"channel": "webhook", "target": receiver.url, "events": ["finished"], "secret": SECRET}])
    rounds = Aftermath(engine, settings)
    scene.fired("a", 0.5)
    _look(rounds)
    wrote = []

    def broken(newer: Any, older: Any) -> Any:
        if engine.dialect.name == "postgresql":
            with writing(engine) as session:
                schedules.edit(session, scene.schedule, priority=3)
        else:
            assert newer.session.scalar(sql("PRAGMA query_only")) == 1
        wrote.append(older)
        raise ZeroDivisionError

    monkeypatch.setattr(aftermath.progress_report, "report", broken)  # type: ignore[attr-defined]
    scene.fired("a", 0.6)
    with capture_logs() as logs:
        _look(rounds)
    assert len(wrote) == 1
    assert "aftermath.not_compared" in [line["event"] for line in logs]
    told = [json.loads(body) for _, body in receiver.got]
    assert [(each["event"], each["comparison"]) for each in told] == [("finished", None)] * 2


def test_a_search_that_is_taken_up_again_is_told_of_again(
    engine: Engine, settings: WorkerSettings, receiver: Receiver
) -> None:
    target = {"channel": "webhook", "target": receiver.url, "events": ["finished", "failed"], "secret": SECRET}
    scene = Scene(engine, [target])
    rounds = Aftermath(engine, settings)
    scene.fired("a", 0.5)
    _look(rounds)
    made = scene.fired("b", 0.7, "failed")
    _look(rounds)
    with writing(engine) as session:
        searches.reopen(session, made, retry_failed=True)
        fire = schedules.fire_of_search(session, made)
        assert fire is not None
        assert (fire.settled_at, fire.comparison) == (None, None)
    _look(rounds)
    with writing(engine) as session:
        found = claims.claim_next(session, "driver", 600.0)
        assert found is not None
        claims.release(session, made, found.attempt, "succeeded")
    _look(rounds)
    told = [json.loads(body) for _, body in receiver.got]
    assert [each["event"] for each in told] == ["finished", "failed", "finished"]
    assert told[2]["comparison"]["moved"]["verdict"] == "improved"


@pytest.fixture
def hanging() -> Iterator[str]:
    """A receiver that takes everything and answers a byte now and then, never a whole line."""
    ended = threading.Event()

    class Trickle(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                for byte in b"HTTP/1.1 " + b"2" * 10_000:
                    self.request.sendall(bytes([byte]))
                    if ended.wait(0.1):
                        return
            except OSError:
                return

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Trickle)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://hook.test:{server.server_address[1]}"
    ended.set()
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_an_attempt_ends_however_slowly_an_answer_trickles(
    hanging: str, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "TOTAL_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(UndeliveredError, match="does not answer") as error:
        send(hook(hanging), settings)
    assert time.monotonic() - began < 8
    assert error.value.silent


def test_a_receiver_that_hangs_holds_up_no_other_and_no_comparison_and_nobody_who_stops(
    engine: Engine, settings: WorkerSettings, receiver: Receiver, hanging: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "TOTAL_SECONDS", 2.0)
    targets = [hanging, receiver.url]
    scene = Scene(
        engine, [{"channel": "webhook", "target": url, "events": ["finished"], "secret": SECRET} for url in targets]
    )
    for _ in range(3):
        scene.fired("a", 0.5)
    rounds = Aftermath(engine, settings)
    rounds.start()
    try:
        _wait_until(lambda: len(receiver.got) == 3)
        assert all(row.status == "pending" for row in scene.deliveries() if row.target == hanging)
        scene.fired("b", 0.9)
        _wait_until(lambda: len(receiver.got) == 4)
        told = [json.loads(body) for _, body in receiver.got]
        assert told[3]["comparison"]["moved"]["verdict"] == "improved"
    finally:
        began = time.monotonic()
        rounds.stop()
        assert time.monotonic() - began < 1
        assert rounds.join(30), "what is under way ends, and its connections with it"


def test_who_does_not_answer_is_asked_once_and_not_for_every_message(
    engine: Engine, settings: WorkerSettings, hanging: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "TOTAL_SECONDS", 0.3)
    scene = Scene(engine, [{"channel": "webhook", "target": hanging, "events": ["finished"], "secret": SECRET}])
    for _ in range(4):
        scene.fired("a", 0.5)
    _look(Aftermath(engine, settings))
    assert sorted(row.attempts for row in scene.deliveries()) == [0, 0, 0, 1]
    with reading(engine) as session:
        assert not deliveries.anything_due(session)


def test_a_mail_server_that_does_not_answer_is_asked_once_and_not_for_every_letter(
    engine: Engine, tmp_path: Path, hanging: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "LETTER_SECONDS", 0.3)
    notify = [{"channel": "email", "target": f"{name}@lab.example", "events": ["finished"]} for name in "abcd"]
    scene = Scene(engine, notify)
    scene.fired("a", 0.5)
    port = int(hanging.rpartition(":")[2])
    _look(Aftermath(engine, WorkerSettings(home=tmp_path, smtp_host="hook.test", smtp_port=port)))
    assert sorted(row.attempts for row in scene.deliveries()) == [0, 0, 0, 1]


def test_a_mail_server_that_takes_its_time_keeps_no_web_hook_waiting(
    engine: Engine, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "LETTER_SECONDS", 100.0)
    letters = [{"channel": "email", "target": f"{n}@lab.example", "events": ["finished"]} for n in range(8)]
    hooked = {"channel": "webhook", "target": receiver.url, "events": ["finished"], "secret": SECRET}
    scene = Scene(engine, [*letters, hooked])
    scene.fired("a", 0.5)
    with trickling([], b"220-x\r\n") as port:
        settings = WorkerSettings(home=tmp_path, hook_hosts="hook.test", smtp_host="hook.test", smtp_port=port)
        rounds = Aftermath(engine, settings)
        rounds.start()
        try:
            _wait_until(lambda: len(receiver.got) == 1)
        finally:
            rounds.stop()
    assert rounds.join(30)


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _look(rounds: Aftermath) -> None:
    """What the threads do, once."""
    rounds.settle_ended()
    rounds.send_due()
