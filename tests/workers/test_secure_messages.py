"""Messages over TLS, to real servers with certificates; and servers that take for ever, in every step on the way."""

from __future__ import annotations

import asyncio
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from pydantic import ValidationError

from search import hooks
from workers import messages
from workers.messages import Message, UndeliveredError, send
from workers.settings import WorkerSettings

HERE = {"hook.test", "hook.test.", "mail.test"}
USER, PASSWORD = "attune", "canary-93be-password"
PAYLOAD = {"event": "test", "message": "A test.", "schedule": {"id": "s", "name": "weekly"}}
HOOK = Message("d1", "webhook", "", "test", PAYLOAD, "canary-6f1d-long-enough")
LETTER = Message("d2", "email", "team@lab.example", "test", PAYLOAD, None)


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that were looked up; those of HERE are this machine's."""
    found: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **more: Any) -> Any:
        if host in HERE:
            found.append(host)
            host = "127.0.0.1"
        return real(host, port, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return found


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """Whose certificates are trusted, as an operator says it."""
    found = trustme.CA()
    path = tmp_path / "authority.pem"
    found.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return found


def context_of(authority: trustme.CA, name: str) -> ssl.SSLContext:
    """A server's, with a certificate for the name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@dataclass
class Receiver:
    """A web hook's server: the names that callers ask for in the TLS handshake, and what it has got."""

    port: int = 0
    names: list[str | None] = field(default_factory=list)
    got: list[tuple[str, bytes]] = field(default_factory=list)


@contextmanager
def receiving(context: ssl.SSLContext) -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.got.append((self.headers["Host"], self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def finish_request(self, request: Any, address: Any) -> None:
            try:
                with context.wrap_socket(request, server_side=True) as secured:
                    super().finish_request(secured, address)
            except OSError:  # who does not trust the certificate hangs up
                return

    context.sni_callback = lambda line, name, _: found.names.append(name)
    with serving(Server(("127.0.0.1", 0), Handler)) as found.port:
        yield found


@contextmanager
def serving(server: socketserver.TCPServer) -> Iterator[int]:
    """The port of a server that runs meanwhile."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join(5)


def post(port: int, tmp_path: Path, host: str = "hook.test") -> None:
    message = Message(**{**vars(HOOK), "target": f"https://{host}:{port}/x"})
    send(message, WorkerSettings(home=tmp_path, hook_hosts="hook.test,hook.test."))


@pytest.mark.parametrize("host", ["hook.test", "hook.test."])
def test_a_web_hook_goes_to_the_address_that_was_checked_and_its_certificate_names_the_host(
    authority: trustme.CA, tmp_path: Path, asked: list[str], host: str
) -> None:
    with receiving(context_of(authority, "hook.test")) as receiver:
        post(receiver.port, tmp_path, host)
    assert receiver.names == ["hook.test"]
    ((said, body),) = receiver.got
    assert (said, json.loads(body)) == (f"{host}:{receiver.port}", PAYLOAD)
    assert asked == [host]  # a second look-up could point elsewhere


def test_nothing_is_sent_to_a_host_with_anothers_certificate(authority: trustme.CA, tmp_path: Path) -> None:
    with receiving(context_of(authority, "other.test")) as receiver, pytest.raises(UndeliveredError) as error:
        post(receiver.port, tmp_path)
    assert receiver.got == []
    assert not error.value.lasting


def test_nothing_is_sent_to_a_host_whose_certificate_nobody_vouches_for(authority: trustme.CA, tmp_path: Path) -> None:
    del authority
    with receiving(context_of(trustme.CA(), "hook.test")) as receiver, pytest.raises(UndeliveredError):
        post(receiver.port, tmp_path)
    assert receiver.got == []


@dataclass
class MailBox:
    """What a mail server has got: recipients, whether over TLS, whether after a login; and passwords that it heard."""

    letters: list[tuple[list[str], bool, bool]] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    at_quit: str = "221 bye"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.letters.append((envelope.rcpt_tos, session.ssl is not None, bool(session.authenticated)))
        return "250 taken"

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        return self.at_quit

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.heard.append(data.password.decode())
        return AuthResult(success=data.login == USER.encode() and data.password == PASSWORD.encode(), handled=False)


@contextmanager
def mail_server(box: MailBox, tls: ssl.SSLContext | None = None, starttls: ssl.SSLContext | None = None,
                **options: Any) -> Iterator[int]:  # fmt: skip
    """The port of a mail server that demands a login where it offers one. tls: from the first byte."""
    loop = asyncio.new_event_loop()

    def made() -> SMTP:
        return SMTP(box, hostname="mail.test", tls_context=starttls, require_starttls=starttls is not None, loop=loop,
                    authenticator=box.authenticate, **options)  # fmt: skip

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    # in the loop's own thread: this one may have a loop already, that of a browser
    opening = loop.create_server(made, "127.0.0.1", 0, ssl=tls)
    server = asyncio.run_coroutine_threadsafe(opening, loop).result(10)

    async def end() -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


def post_office(tmp_path: Path, port: int, security: str, **more: Any) -> WorkerSettings:
    return WorkerSettings(
        home=tmp_path, smtp_host="mail.test", smtp_port=port, smtp_security=security, smtp_from="attune@lab.example",
        **more,
    )  # fmt: skip


LOGIN = {"smtp_user": USER, "smtp_password": PASSWORD}


def test_a_letter_goes_over_starttls_after_a_login(authority: trustme.CA, tmp_path: Path) -> None:
    box = MailBox()
    with mail_server(box, starttls=context_of(authority, "mail.test"), auth_required=True) as port:
        send(LETTER, post_office(tmp_path, port, "starttls", **LOGIN))
    assert box.letters == [(["team@lab.example"], True, True)]


def test_a_letter_goes_over_tls_from_the_first_byte(authority: trustme.CA, tmp_path: Path) -> None:
    box = MailBox()
    with mail_server(box, tls=context_of(authority, "mail.test"), auth_require_tls=False) as port:
        send(LETTER, post_office(tmp_path, port, "tls", **LOGIN))
    assert [recipients for recipients, _, _ in box.letters] == [["team@lab.example"]]
    assert box.heard == [PASSWORD]


def test_a_wrong_password_is_told_without_the_password(authority: trustme.CA, tmp_path: Path) -> None:
    box = MailBox()
    wrong = {**LOGIN, "smtp_password": "canary-wrong"}
    refused = pytest.raises(UndeliveredError, match="SMTPAuthenticationError")
    with mail_server(box, starttls=context_of(authority, "mail.test"), auth_required=True) as port, refused as error:
        send(LETTER, post_office(tmp_path, port, "starttls", **wrong))
    assert "canary" not in str(error.value)
    assert box.letters == []


def test_half_a_login_is_refused_without_saying_it() -> None:
    for half in ({"smtp_user": "canary"}, {"smtp_password": "canary"}):
        with pytest.raises(ValidationError, match="ATTUNE_SMTP_USER and ATTUNE_SMTP_PASSWORD go together") as error:
            WorkerSettings(**half)
        assert "canary" not in str(error.value)


def test_without_the_encryption_that_is_asked_for_nothing_is_said(authority: trustme.CA, tmp_path: Path) -> None:
    """Neither where the server offers none, nor where its certificate is another's or nobody's."""
    box = MailBox()
    strange = [
        ("starttls", {"auth_require_tls": False}),
        ("starttls", {"starttls": context_of(authority, "other.test")}),
        ("starttls", {"starttls": context_of(trustme.CA(), "mail.test")}),
        ("tls", {"tls": context_of(authority, "other.test"), "auth_require_tls": False}),
        ("tls", {"tls": context_of(trustme.CA(), "mail.test"), "auth_require_tls": False}),
    ]
    for security, offered in strange:
        with mail_server(box, **offered) as port, pytest.raises(UndeliveredError):  # type: ignore[arg-type]
            send(LETTER, post_office(tmp_path, port, security, **LOGIN))
    assert (box.letters, box.heard) == ([], [])


def test_a_letter_that_was_taken_has_arrived_however_the_server_parts(tmp_path: Path) -> None:
    box = MailBox(at_quit="451 not so fast")
    with mail_server(box) as port:
        send(LETTER, post_office(tmp_path, port, "none"))
    assert len(box.letters) == 1


GREETING = (b"220 ready\r\n", b"250-mail.test\r\n250 STARTTLS\r\n")
SLOW_STEPS: dict[str, tuple[str, list[bytes], bytes]] = {
    # how it is encrypted, what is answered to each step, and what trickles instead of the next answer
    "greeting": ("none", [], b"220 "),
    "a greeting of many lines": ("none", [], b"220-x\r\n"),
    "hello": ("none", [GREETING[0]], b"250-x\r\n"),
    "the handshake": ("tls", [], b"\x16\x03\x03\x40\x00"),
    "the handshake after starttls": ("starttls", [*GREETING, b"220 go\r\n"], b"\x16\x03\x03\x40\x00"),
    "the letter": ("none", [GREETING[0], b"250 mail.test\r\n", b"250 ok\r\n", b"250 ok\r\n"], b"354-x\r\n"),
}


@contextmanager
def trickling(steps: list[bytes], drop: bytes) -> Iterator[int]:
    """The port of a server that answers some steps, and then a byte now and then, as long as the test lasts."""
    ended = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                for number, answer in enumerate(steps):
                    if number:
                        self.request.recv(4096)
                    self.request.sendall(answer)
                while not ended.wait(0.02):
                    for byte in drop:
                        self.request.sendall(bytes([byte]))
            except OSError:
                return

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with serving(server) as port:
        yield port
        ended.set()


@pytest.mark.parametrize("step", list(SLOW_STEPS))
def test_a_mail_server_that_trickles_is_left_whatever_it_trickles(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    security, steps, drop = SLOW_STEPS[step]
    monkeypatch.setattr(messages, "LETTER_SECONDS", 0.4)
    with trickling(steps, drop) as port, pytest.raises(UndeliveredError, match="within 0 s") as error:
        send(LETTER, post_office(tmp_path, port, security))
    assert error.value.silent


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_receiver_that_trickles_is_left(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "TOTAL_SECONDS", 0.4)
    settings = WorkerSettings(home=tmp_path, hook_hosts="hook.test")
    drop = b"\x16\x03\x03\x40\x00" if scheme == "https" else b"HTTP/1.1 100 Continue\r\n\r\n"
    with trickling([], drop) as port, pytest.raises(UndeliveredError, match="within 0 s") as error:
        send(Message(**{**vars(HOOK), "target": f"{scheme}://hook.test:{port}/"}), settings)
    assert error.value.silent


@pytest.mark.parametrize("message", [Message(**{**vars(HOOK), "target": "https://slow.test/"}), LETTER])
def test_a_name_that_nobody_looks_up_in_time_is_told(
    message: Message, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(messages, "TOTAL_SECONDS", 0.2)
    monkeypatch.setattr(messages, "LETTER_SECONDS", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", _never(ended))
    settings = WorkerSettings(home=tmp_path, smtp_host="slow.test")
    with pytest.raises(UndeliveredError, match="No name server says in time") as error:
        send(message, settings)
    assert (error.value.silent, error.value.lasting) == (True, False)
    ended.set()


def _never(ended: threading.Event) -> Callable[..., Any]:
    def look_up(*args: Any, **more: Any) -> Any:
        ended.wait(60)
        raise OSError

    return look_up


def test_a_name_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(hooks.UnresolvedError, match="has no address"):
        hooks.resolved("nowhere.invalid", 443)
    with pytest.raises(hooks.UnresolvedError, match="has no address"):
        hooks.resolved("x" * 70 + ".test", 443)  # no name's part is so long
