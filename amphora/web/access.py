"""Who may see the dashboard.

A page of some other site, open in the same browser, can send requests to this machine.  It cannot
choose the Host header: so a name there that is not ours comes of a foreign name that was made to
point here.  And it cannot add headers of its own to a request: so what changes something wants one.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Container, Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any

Environ = dict[str, Any]

# What a request that changes something has to have.
HEADER = "HTTP_X_AMPHORA"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def names_of(host: str, names: Iterable[str] = ()) -> set[str]:
    """Return the names by which what listens at an address may be reached.

    Args:
        host: the address.
        names: further names.
    """
    return {"localhost", host.lower(), socket.gethostname().lower(), *map(str.lower, names)}


def knows_host(environ: Environ, names: Container[str]) -> bool:
    """Return whether a request is for one of some names, or for an address."""
    name = _name_of(environ.get("HTTP_HOST", ""))
    if name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def has_own_origin(environ: Environ) -> bool:
    """Return whether a request comes from a page of the same host, or from no page."""
    host = environ.get("HTTP_HOST")
    return environ.get("HTTP_ORIGIN") in (None, f"http://{host}", f"https://{host}")


class Access:
    """Who may see a dashboard.

    Args:
        host: the address that it listens on.
        port: the port that it listens on.
        names: other names that it is reached by.

    Attributes:
        token: what a browser has to know, None if only this machine can reach it.
    """

    def __init__(self, host: str, port: int, names: Iterable[str] = ()) -> None:
        self.token = None if is_loopback(host) else secrets.token_urlsafe(24)
        self._names = names_of(host, names)
        # Cookies are for all ports of a host.
        self._cookie = f"amphora_{port}"

    def knows_host(self, environ: Environ) -> bool:
        """Return whether the request is for a name of ours, or for an address."""
        return knows_host(environ, self._names)

    def knows(self, given: str) -> bool:
        """Return whether this is the token."""
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
        return f"{self._cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"

    @staticmethod
    def is_own(environ: Environ) -> bool:
        """Return whether a request that changes something comes from our own page."""
        return environ.get(HEADER) == "1" and has_own_origin(environ)


def _name_of(host: str) -> str:
    """Return the name in a Host header."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
