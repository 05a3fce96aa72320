"""Hands a letter to a mail server, in a time that the server cannot stretch."""

from __future__ import annotations

import smtplib
import socket
import ssl
import time
from contextlib import suppress
from email.message import EmailMessage

from search import hooks
from workers.lines import connected
from workers.settings import WorkerSettings


def hand_over(letter: EmailMessage, settings: WorkerSettings, seconds: float) -> None:
    """Gives the letter to the server of the settings, within `seconds` in all.

    Raises SMTPException, OSError (TLS too: a certificate that is not the server's) and hooks.UnresolvedError.
    """
    deadline = time.monotonic() + seconds
    assert settings.smtp_host is not None
    addresses = hooks.resolved(settings.smtp_host, settings.smtp_port, seconds)
    with connected(addresses, settings.smtp_port, deadline) as line:
        line.settimeout(seconds)  # of a step; the deadline is that of all of them
        _talk(letter, settings, line)


def _talk(letter: EmailMessage, settings: WorkerSettings, line: socket.socket) -> None:
    assert settings.smtp_host is not None
    context = ssl.create_default_context()
    if settings.smtp_security == "tls":
        line = context.wrap_socket(line, server_hostname=settings.smtp_host)
    server = _Server(settings.smtp_host, line)
    try:
        code, _ = server.connect(settings.smtp_host, settings.smtp_port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, "no greeting")
        if settings.smtp_security == "starttls":
            server.starttls(context=context)
        if settings.smtp_user is not None and settings.smtp_password is not None:
            server.login(settings.smtp_user, settings.smtp_password.get_secret_value())
        server.send_message(letter)
        with suppress(smtplib.SMTPException, OSError):  # the letter is theirs by now, however they part
            server.quit()
    finally:
        server.close()


class _Server(smtplib.SMTP):
    """Speaks over a connection that is there already. host: that its certificate must name."""

    def __init__(self, host: str, line: socket.socket) -> None:
        super().__init__(local_hostname=_our_name(line))  # else it asks name servers for ours
        self._host = host
        self._line = line

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self._line


def _our_name(line: socket.socket) -> str:
    """How we call ourselves: a name with its domain, or our address as RFC 5321 (4.1.3) writes it."""
    name = socket.gethostname()
    address = line.getsockname()[0]
    return name if "." in name else f"[IPv6:{address}]" if ":" in address else f"[{address}]"
