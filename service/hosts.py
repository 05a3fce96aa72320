"""Names and addresses of hosts, as they stand in settings, Host headers and sockets."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address


def address(host: str) -> IPv4Address | IPv6Address | None:
    """The IP address written in `host`; None for a name."""
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`; of names, only localhost is known to be so."""
    found = address(host)
    return host.lower() == "localhost" if found is None else found.is_loopback


def bracketed(host: str) -> str:
    """An IPv6 address as it stands in a Host header."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def host_name(header: str) -> str:
    """A Host header without its port, lower case."""
    text = header.strip().lower()
    name, _, port = text.rpartition(":")
    return name if name and port.isdigit() else text
