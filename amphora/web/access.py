"""Access to the dashboard.

A page of another site, open in the same browser, can send requests to this machine.  It cannot
choose the Host header: an unknown name there means that a foreign name was made to point here.  Nor
can it add headers of its own: so requests that change something need such a header.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Container, Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any

from amphora.errors import repr_of

Environ = dict[str, Any]

# The header that a request needs to change something.
HEADER = "HTTP_X_AMPHORA"
# What can be in a Host header before the port.
_NAME = re.compile(r"[A-Za-z0-9._~-]+")


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def names_of(host: str, names: Iterable[str] = ()) -> set[str]:
    """Return the names under which a server may be reached.

    Args:
        host: the address that it listens on.
        names: further names.

    Raises:
        ValueError: one of them is not a name as browsers send it.
    """
    return {"localhost", host.lower(), socket.gethostname().lower(), *checked_names(names)}


def checked_names(names: Iterable[str]) -> set[str]:
    """Return the names of hosts in lower case.

    Raises:
        ValueError: one of them is not a name as browsers send it.
    """
    names = list(names)
    for name in names:
        if not _NAME.fullmatch(name) and not _is_address(name):
            raise ValueError(
                f"{repr_of(name)} is not the name of a host: write it like shop.example.org,"
                " without a scheme or a port"
            )
    return {name.lower() for name in names}


def knows_host(environ: Environ, names: Container[str]) -> bool:
    """Return whether a request is for one of some names, or for an address."""
    name = _name_of(environ.get("HTTP_HOST", ""))
    return name in names or _is_address(name)


def has_own_origin(environ: Environ) -> bool:
    """Return whether a request comes from a page of the same host, or from no page."""
    host = environ.get("HTTP_HOST")
    return environ.get("HTTP_ORIGIN") in (None, f"http://{host}", f"https://{host}")


class Access:
    """The access rules of a dashboard.

    Args:
        host: the address that it listens on.
        port: the port that it listens on.
        names: other names under which it is reached.

    Raises:
        ValueError: one of them is not a name as browsers send it.

    Attributes:
        token: the token that a browser needs, None if only this machine can reach the dashboard.
    """

    def __init__(self, host: str, port: int, names: Iterable[str] = ()) -> None:
        self.token = None if is_loopback(host) else secrets.token_urlsafe(24)
        self._names = names_of(host, names)
        # A host's cookies are shared by all its ports.
        self._cookie = f"amphora_{port}"

    def knows_host(self, environ: Environ) -> bool:
        """Return whether the request is for a known name, or for an address."""
        return knows_host(environ, self._names)

    def knows(self, given: str) -> bool:
        """Return whether a text is the token."""
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def is_allowed(self, environ: Environ) -> bool:
        """Return whether the browser has the cookie, if it needs one."""
        if self.token is None:
            return True
        try:
            cookies = SimpleCookie(environ.get("HTTP_COOKIE", ""))
        except CookieError:
            return False
        return self._cookie in cookies and self.knows(cookies[self._cookie].value)

    @property
    def cookie(self) -> str:
        """The value of a Set-Cookie header."""
        # A link on a page of another site, such as a chat, may open the dashboard: with "Strict" it
        # would be refused.  Nothing that a link can do changes something.
        return f"{self._cookie}={self.token}; Path=/; HttpOnly; SameSite=Lax"

    @staticmethod
    def is_own(environ: Environ) -> bool:
        """Return whether a request that changes something comes from the dashboard's own page."""
        return environ.get(HEADER) == "1" and has_own_origin(environ)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _name_of(host: str) -> str:
    """Return the name in a Host header."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
