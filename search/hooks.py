"""Where messages may go: e-mail addresses, and the addresses of web hooks, which must not reach into our own network.

Whoever may write a schedule can make a worker send requests. So a hook's host must resolve to addresses of the public
internet alone, unless the operator has listed it.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from queue import Empty, SimpleQueue
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
LONGEST_URL = 2000
LOOK_UP_SECONDS = 5.0
_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+")
_HOST = re.compile(r"[a-z0-9]([a-z0-9_.-]*[a-z0-9])?\.?")
_NAT64 = ip_network("64:ff9b::/96")


class HookError(ValueError):
    """An address that no message is sent to; the message is meant for users and names no address of our network."""


class UnresolvedError(HookError):
    """The host's name has no address now; it may have one later."""


@dataclass(frozen=True)
class HookUrl:
    """The parts of a hook's URL. host: lower case, without brackets. path: with its query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"


def listed(text: str) -> frozenset[str]:
    """An operator's comma-separated hosts."""
    return frozenset(part.strip().lower() for part in text.split(",") if part.strip())


def parse(url: str) -> HookUrl:
    """HookError for anything but an http or https address of a host."""
    if len(url) > LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise HookError(f"A web hook's address is one line of up to {LONGEST_URL} ASCII characters, without spaces.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise HookError("That is no address: its host or port cannot be read.") from None
    host = (parts.hostname or "").lower()
    if parts.scheme not in ("http", "https") or not host:
        raise HookError("A web hook's address begins with https:// and names a host.")
    if "@" in parts.netloc:
        raise HookError("User names and passwords do not belong into an address.")
    if parts.fragment:
        raise HookError("An address with a # has a part that is never sent.")
    if literal(host) is None and not _HOST.fullmatch(host):
        raise HookError("The host's name holds characters that no host's name has.")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return HookUrl(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), path)


def addresses(hook: HookUrl, allowed: Collection[str], resolve: Resolve | None = None) -> list[str]:
    """The addresses that a message to `hook` may be sent to, in the resolver's order.

    allowed: hosts (names or addresses) that may be private and may do without encryption. Raises HookError, and
    UnresolvedError where the name has no address.
    """
    if hook.host in allowed:
        return list((resolve or resolved)(hook.host, hook.port))
    if hook.scheme != "https":
        raise HookError("Web hooks use https, except to hosts that the operator lists in ATTUNE_HOOK_HOSTS.")
    found = list((resolve or resolved)(hook.host, hook.port))
    if not all(is_public(address) for address in found):  # one private address among several is enough for an attack
        raise HookError(
            "The host is in a private network: only hosts that the operator lists in ATTUNE_HOOK_HOSTS may be."
        )
    return found


def resolved(host: str, port: int, seconds: float = LOOK_UP_SECONDS) -> list[str]:
    """The addresses of a host. UnresolvedError when there is none, or when no name server says so within `seconds`.

    A look-up cannot be broken off: it has a thread of its own, which is left behind when it takes longer.
    """
    answer: SimpleQueue[list[str]] = SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            found = []
        answer.put(list(dict.fromkeys(str(entry[4][0]) for entry in found)))

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    try:
        addresses = answer.get(timeout=max(0.0, seconds))
    except Empty:
        raise UnresolvedError("No name server says in time where the host is.") from None
    if not addresses:
        raise UnresolvedError("The host's name has no address.")
    return addresses


def is_public(text: str) -> bool:
    """Whether an address belongs to the public internet, whatever it is wrapped into."""
    address = literal(text)
    if address is None:
        return False
    if isinstance(address, IPv6Address):
        if address in _NAT64:  # what a network without IPv4 reaches it by: nothing of its own
            return is_public(str(IPv4Address(int(address) & 0xFFFFFFFF)))
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is not None and not is_public(str(inner)):
            return False
    if isinstance(address, IPv6Address) and address.is_site_local:  # private networks of old; Python 3.11 has it global
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def literal(host: str) -> Address | None:
    """The address that `host` is written as; None for a name."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def is_email(text: str) -> bool:
    """Whether `text` is one plain e-mail address, fit for a header."""
    return len(text) <= 254 and _EMAIL.fullmatch(text) is not None
