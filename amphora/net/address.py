"""Addresses: as they are written in a URL, and as a socket takes them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import gevent.socket

# What stands for the port of a broker in this very process, which has none.
IN_MEMORY = 0
MEMORY_SCHEME = "memory://"


def address(host: str, port: int) -> str:
    """Return `host:port` as it is written in a URL, or `memory://name`."""
    if port == IN_MEMORY:
        return f"{MEMORY_SCHEME}{host}"
    return host_and_port(host, port)


def host_and_port(host: str, port: int) -> str:
    """Return `host:port` as it is written in a URL, whatever the port is."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def socket_addresses(host: str, port: int) -> list[tuple[Any, Any]]:
    """Return the family and the address for a socket, for each address that a host has.

    Switches greenlets to look up a name.

    Raises:
        OSError: the name cannot be found.
        UnicodeError: it cannot be a name.
    """
    try:
        version = ip_address(host).version
    except ValueError:
        found = gevent.socket.getaddrinfo(host, port, 0, gevent.socket.SOCK_STREAM)
        return list(dict.fromkeys((family, where) for family, _, _, _, where in found))
    # An address needs no resolver, whose threads a process may do without.
    family = gevent.socket.AF_INET if version == 4 else gevent.socket.AF_INET6
    return [(family, (host, port))]
