"""Messages about schedules on their way: signed web hooks and e-mail. Nothing here knows the database.

A web hook is a POST of JSON. `Attune-Signature: t=SECONDS,v1=HEX` is the HMAC-SHA256 of "SECONDS.BODY" under the
hook's secret, so that a receiver can tell who wrote it and when. The host is resolved, its addresses are checked, and
the request goes to one of just these, so that a name cannot point elsewhere a moment later; redirects are not followed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import smtplib
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from functools import partial
from http.client import HTTPConnection, HTTPException
from typing import Any

import httpx

from search import hooks
from workers.lines import connected
from workers.mail import hand_over
from workers.settings import WorkerSettings

TOTAL_SECONDS = 12.0
"""Of a web hook's attempt as a whole, with the look-up of the host's name."""
LETTER_SECONDS = 30.0
"""The same of a letter: servers that look for spam take their time, and one that is left too soon gets it twice."""
MOST_ADDRESSES = 3
MOST_LISTED = 20
SILENT = (smtplib.SMTPServerDisconnected, smtplib.SMTPConnectError)


class UndeliveredError(Exception):
    """A message has not arrived; the reason names neither secrets nor addresses of our network.

    lasting: trying again is of no use. silent: nobody answers at the target, whatever the message.
    """

    def __init__(self, reason: str, *, lasting: bool = False, silent: bool = False) -> None:
        super().__init__(reason)
        self.lasting = lasting
        self.silent = silent


@dataclass(frozen=True)
class Message:
    """id: the same however often it is sent, so that a receiver can drop repeats. secret: of a web hook."""

    id: str
    channel: str
    target: str
    event: str
    payload: Mapping[str, Any]
    secret: str | None


def send(message: Message, settings: WorkerSettings) -> None:
    """Sends a message by its channel. Raises UndeliveredError."""
    if message.channel == "webhook":
        _post(message, settings)
    else:
        _mail(message, settings)


def signature(secret: str, body: bytes, seconds: int) -> str:
    """The header's value for a body sent at `seconds` (Unix time)."""
    digest = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={digest}"


def _post(message: Message, settings: WorkerSettings, clock: Callable[[], float] = time.time) -> None:
    if message.secret is None:
        raise UndeliveredError("The web hook has no secret to sign with.", lasting=True)
    deadline = time.monotonic() + TOTAL_SECONDS
    look_up = partial(hooks.resolved, seconds=TOTAL_SECONDS)
    try:
        hook = hooks.parse(message.target)
        found = hooks.addresses(hook, hooks.listed(settings.hook_hosts), look_up)
    except hooks.UnresolvedError as error:
        raise UndeliveredError(str(error), silent=True) from None
    except hooks.HookError as error:
        raise UndeliveredError(str(error), lasting=True) from None
    body = json.dumps(message.payload, ensure_ascii=False, separators=(",", ":"), default=str).encode()
    headers = {
        "Host": hook.authority,
        "Content-Type": "application/json",
        "User-Agent": "attune",
        "Attune-Event": message.event,
        "Attune-Delivery": message.id,
        "Attune-Signature": signature(message.secret, body, int(clock())),
    }
    _judge(_first_status(hook, found[:MOST_ADDRESSES], body, headers, deadline))


def _first_status(
    hook: hooks.HookUrl, found: Sequence[str], body: bytes, headers: Mapping[str, str], deadline: float
) -> int:
    """The status that the first of the addresses answers that does."""
    failure = "no address"
    for address in found:
        try:
            with connected([address], hook.port, deadline) as line:
                return _status(hook, line, body, headers)
        except (OSError, HTTPException) as error:
            failure = type(error).__name__
        if time.monotonic() >= deadline:
            failure = f"within {TOTAL_SECONDS:.0f} s"
            break
    raise UndeliveredError(f"The host does not answer ({failure}).", silent=True)


def _status(hook: hooks.HookUrl, line: socket.socket, body: bytes, headers: Mapping[str, str]) -> int:
    """The status that is answered to a request on this connection; the answer's body is not read."""
    if hook.scheme == "https":
        # the certificate must name the host, not the address; and certificates know no dot at the end
        line = httpx.create_ssl_context().wrap_socket(line, server_hostname=hook.host.removesuffix("."))
    connection = HTTPConnection(hook.host, hook.port)
    connection.sock = line
    try:
        connection.request("POST", hook.path, body, dict(headers))
        with connection.getresponse() as response:
            return response.status
    finally:
        connection.close()


def _judge(status: int) -> None:
    if 200 <= status < 300:
        return
    if 300 <= status < 400:
        raise UndeliveredError(f"The host answered {status}: redirects are not followed.", lasting=True)
    raise UndeliveredError(f"The host answered {status}.", lasting=status == 410)


def _mail(message: Message, settings: WorkerSettings) -> None:
    if settings.smtp_host is None:
        raise UndeliveredError("No mail server is set: ATTUNE_SMTP_HOST.", lasting=True)
    letter = EmailMessage()
    letter["From"] = settings.smtp_from
    letter["To"] = message.target
    letter["Subject"] = subject(message)
    letter["Date"] = formatdate()
    letter["Message-ID"] = f"<{message.id}@attune>"
    letter.set_content(text(message))
    began = time.monotonic()
    try:
        hand_over(letter, settings, LETTER_SECONDS)
    except hooks.UnresolvedError as error:
        raise UndeliveredError(f"The mail server was not found: {error}", silent=True) from None
    except (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused) as error:
        raise UndeliveredError(f"The mail server refuses the address ({type(error).__name__}).") from None
    except (smtplib.SMTPException, OSError) as error:  # their texts may quote what was sent
        silent = isinstance(error, SILENT) or not isinstance(error, smtplib.SMTPException)
        late = time.monotonic() - began >= LETTER_SECONDS
        why = f"within {LETTER_SECONDS:.0f} s" if late else type(error).__name__
        raise UndeliveredError(f"The mail server did not take it ({why}).", silent=silent) from None


def subject(message: Message) -> str:
    """One line; names of schedules hold no line breaks."""
    name = message.payload["schedule"]["name"]
    words = {"finished": "finished", "failed": "failed", "improved": "the front has moved", "test": "a test"}
    return f"attune: {name}: {words.get(message.event, message.event)}"


def text(message: Message) -> str:
    """The letter."""
    payload = message.payload
    lines = [payload["message"]]
    search = payload.get("search")
    if search:
        lines += ["", f"Search: {search['name']}", f"Status: {search['status']}", f"Id: {search['id']}"]
    error = payload.get("error") or (search or {}).get("error")
    if error:
        lines += ["", f"Error: {error['message']}"]
    comparison = payload.get("comparison")
    if comparison:
        lines += ["", comparison["summary"], *_listed(comparison)]
    return "\n".join(lines) + "\n"


def _listed(comparison: Mapping[str, Any]) -> Iterator[str]:
    """Which placements and architectures the comparison counts."""
    placements = {"entered": "Placements that entered the front", "left": "Placements that left it"}
    points = {"gained": "Architectures gained", "lost": "Architectures lost"}
    for name, title in (placements | points).items():
        found = comparison.get(name) or []
        if found:
            yield from ("", f"{title}:")
        for each in found[:MOST_LISTED]:
            if name in placements:
                yield f"  {each['site']} {each['modules']} (in {each['architectures']})"
            else:
                yield f"  {each['label']}: {', '.join(f'{key} {value:.6g}' for key, value in each['values'].items())}"
        if len(found) > MOST_LISTED:
            yield f"  and {len(found) - MOST_LISTED} more"
