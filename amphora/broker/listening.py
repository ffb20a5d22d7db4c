"""Listening on all addresses of a name, on the same port.

`localhost` has two addresses, and other names may have several.  A client may try any of them
first.
"""

from __future__ import annotations

import errno
import ipaddress
from typing import Any

from gevent import socket

from amphora.net.address import host_and_port, socket_addresses

LOOPBACK = "127.0.0.1"
LOCALHOST = "localhost"
# The addresses of `localhost`, whether or not the machine's table of hosts has both.
LOCALHOST_ADDRESSES = (LOOPBACK, "::1")

BACKLOG = 1024
# How many free ports to try until one is free on all addresses.
MOST_TRIES = 50
# The machine has no such address: there is no IPv6, or the name is that of another machine.
NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def is_this_machine(host: str) -> bool:
    """Return whether a client's address is on this machine."""
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        # A socket for both families shows IPv4 clients in this form.
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on each address that `host` has on this machine, with one port; return the sockets.

    Switches greenlets to look up a name.

    Args:
        port: the port; 0 for one that is free on all of them.

    Raises:
        OSError: an address cannot be listened on; its `filename` is the address and the port.
    """
    addresses = _addresses(host, port)
    for _ in range(MOST_TRIES - 1):
        try:
            return _listen_at_all(addresses, port)
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE:
                raise
    return _listen_at_all(addresses, port)


def _addresses(host: str, port: int) -> list[tuple[Any, Any]]:
    """Return the family and the address for a socket, once for each address."""
    hosts = LOCALHOST_ADDRESSES if host.lower() == LOCALHOST else (host,)
    try:
        return [where for each in hosts for where in socket_addresses(each, port)]
    except OSError as error:
        raise OSError(error.errno, error.strerror, host_and_port(host, port)) from error


def _listen_at_all(addresses: list[tuple[Any, Any]], port: int) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    missing = None
    try:
        for family, (host, _, *rest) in addresses:
            try:
                listener = _listen_at(family, (host, port, *rest), alone=len(addresses) == 1)
            except OSError as error:
                if error.errno not in NOT_HERE:
                    raise
                missing = error
                continue
            listeners.append(listener)
            # The next address uses the same port.
            port = listener.getsockname()[1]
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    if not listeners and missing is not None:
        raise missing
    return listeners


def _listen_at(family: Any, address: tuple[Any, ...], *, alone: bool) -> socket.socket:
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6 and not alone:
                # IPv4 has a socket of its own.
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, host_and_port(*address[:2])) from error
    return listener
