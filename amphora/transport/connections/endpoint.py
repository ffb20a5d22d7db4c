"""Where a broker is and how to log in: hosts, credentials, TLS, limits.

The password is kept out of `repr`, of errors and of logs.
"""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass, field
from typing import TypedDict
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import gevent.ssl

from amphora.errors import printable, repr_of
from amphora.net.address import IN_MEMORY, MEMORY_SCHEME, address
from amphora.transport.checks import check_count, check_flag, check_number, no_seconds
from amphora.transport.connections.tls import Tls, TlsFiles, TlsOfFiles
from amphora.transport.words import is_unicode, utf8_word
from amphora.wire.content import DEFAULT_MAX_MESSAGE_SIZE

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"
# The broker closes a silent connection after three of these; RabbitMQ advises 5 to 20 seconds
# (https://www.rabbitmq.com/docs/heartbeats).
DEFAULT_HEARTBEAT = 10.0
DEFAULT_CONNECT_TIMEOUT = 5.0
DEFAULT_FRAME_MAX = 131072
DEFAULT_CHANNEL_MAX = 2047
# Seconds after which an unanswered method counts as failed.  A node that waits for a dead node does
# not answer at all.
DEFAULT_METHOD_TIMEOUT = 5.0

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PORTS = {"amqp": 5672, "amqps": 5671, "memory": IN_MEMORY}
# Characters that no host name has, but a URL does.
_NO_HOST = frozenset("/@?#")
# Of AMQP's type "path", which a vhost is, and of a short string.
_LONGEST_VHOST = 127
_LONGEST_VHOST_BYTES = 255
_NUMBER_OPTIONS = {"heartbeat": "heartbeat", "connection_timeout": "connect_timeout"}
# Settings in seconds of which 0 means none.
_SWITCHED_OFF_BY_0 = frozenset({"heartbeat"})


class ConnectionSettings(TypedDict, total=False):
    """The settings beside the URL; see `endpoint`."""

    amqp_host: str | None
    amqp_port: int | None
    amqp_user: str | None
    amqp_password: str | None
    amqp_vhost: str | None
    heartbeat: float | None
    connect_timeout: float | None
    max_message_size: int | None
    ssl_context: gevent.ssl.SSLContext | None
    insecure_skip_tls_verification: bool


@dataclass(frozen=True)
class Endpoint:
    """Everything that is needed to open a connection.

    `hosts` are tried in random order.  `tls` is None for a connection without TLS.  `heartbeat` and
    `connect_timeout` are seconds; a heartbeat of 0 switches heartbeats off.
    """

    hosts: tuple[tuple[str, int], ...]
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    vhost: str = "/"
    tls: Tls | None = field(default=None, repr=False)
    heartbeat: float = DEFAULT_HEARTBEAT
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT
    method_timeout: float = DEFAULT_METHOD_TIMEOUT
    frame_max: int = DEFAULT_FRAME_MAX
    channel_max: int = DEFAULT_CHANNEL_MAX
    max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE

    def __str__(self) -> str:
        scheme = "amqps" if self.tls else "amqp"
        hosts = ",".join(address(host, port) for host, port in self.hosts)
        if hosts.startswith(MEMORY_SCHEME):
            scheme, _, hosts = hosts.partition("://")
        vhost = "" if self.vhost == "/" else quote(self.vhost, safe="")
        return f"{scheme}://{quote(self.user, safe='')}:***@{hosts}/{vhost}"

    @property
    def hint(self) -> str:
        """The end of the error if nothing listens there: how to start a broker.

        Empty unless the broker is on this machine and the login is the default one: if a RabbitMQ
        is down, `amphora broker` would take its port.
        """
        host, port = self.hosts[0]
        anybody = (self.user, self.password, self.vhost) == ("guest", "guest", "/")
        if len(self.hosts) > 1 or host not in LOOPBACK or self.tls or not anybody:
            return ""
        option = "" if port == _PORTS["amqp"] else f" --port {port}"
        return f"; `amphora broker{option}` starts one here"


def endpoint(
    url: str | None = None,
    *,
    amqp_host: str | None = None,
    amqp_port: int | None = None,
    amqp_user: str | None = None,
    amqp_password: str | None = None,
    amqp_vhost: str | None = None,
    heartbeat: float | None = None,
    connect_timeout: float | None = None,
    max_message_size: int | None = None,
    ssl_context: gevent.ssl.SSLContext | None = None,
    insecure_skip_tls_verification: bool = False,
) -> Endpoint:
    """Return the endpoint for a URL or single settings.

    Args:
        url: `amqp://user:password@host:port/vhost`, with `amqps` for TLS and several
            `host:port` separated by commas.  Options behind `?` are `heartbeat` and
            `connection_timeout` (seconds), `cafile`, `certfile` and `keyfile`.  A missing or
            empty vhost is `/`; write a slash in a name as `%2f`.  `memory://name` is a broker in
            this process, made by `amphora.testing.Broker`.  Without any setting, the URL in the
            environment variable `AMQP_URL` is used, else a broker on this machine.
        amqp_host, amqp_port, amqp_user, amqp_password, amqp_vhost: the same as single settings,
            which cannot be mixed with `url`.  The host may be `host:port`; its port then overrides
            `amqp_port`, as in amphora 0.1.  An empty host or vhost is as good as none.
        heartbeat: seconds between signs of life; 0 switches them off.
        connect_timeout: seconds to connect and log in to one host.
        max_message_size: the largest body to send or accept, in bytes; 16 MiB if not given.  The
            broker's own limit may be lower.
        ssl_context: a `gevent.ssl.SSLContext` instead of the verifying default.
        insecure_skip_tls_verification: accept any certificate.  Anyone between this machine and
            the broker can then read and change everything.

    Raises:
        ValueError: a setting is invalid; the text never has the password.
    """
    texts = {
        "amqp_host": amqp_host,
        "amqp_user": amqp_user,
        "amqp_password": amqp_password,
        "amqp_vhost": amqp_vhost,
    }
    for name, value in ("url", url), *texts.items():
        if value is not None:
            _check_text(name, value)
    if amqp_host is not None and not _NO_HOST.isdisjoint(amqp_host):
        raise ValueError("amqp_host must be the name of a host; a URL is given as url")
    if amqp_port is not None:
        amqp_port = check_count("amqp_port", amqp_port, 65535)
    settings = {**texts, "amqp_port": amqp_port}
    given = [name for name, value in settings.items() if value is not None]
    if url is not None and given:
        raise ValueError(f"give either url or {', '.join(given)}, not both")
    if url is None and not given:
        parsed, tls, files = _of_environment()
    elif url is None:
        parsed = _of_settings(amqp_host, amqp_port, amqp_user, amqp_password, amqp_vhost)
        tls, files = False, {}
    else:
        parsed, tls, files = _parse_url(url)
    unverified = check_flag("insecure_skip_tls_verification", insecure_skip_tls_verification)
    changes: dict[str, object] = {}
    if heartbeat is not None:
        changes["heartbeat"] = _seconds("heartbeat", heartbeat)
    if connect_timeout is not None:
        changes["connect_timeout"] = _seconds("connect_timeout", connect_timeout)
    if max_message_size is not None:
        changes["max_message_size"] = check_count("max_message_size", max_message_size)
    if ssl_context is not None:
        if not isinstance(ssl_context, gevent.ssl.SSLContext):
            raise ValueError("ssl_context must be made by gevent.ssl, not by ssl")
        changes["tls"] = Tls(ssl_context)
    elif tls:
        changes["tls"] = TlsOfFiles(TlsFiles(**files), skip_verification=unverified)
    elif unverified or files:
        raise ValueError("TLS settings need an amqps:// URL")
    return _replace(parsed, changes)


# The names of the settings beside the URL.
SETTINGS = ConnectionSettings.__optional_keys__


def url_of_environment() -> str | None:
    """Return the value of `AMQP_URL` in the environment, None if it is unset or empty.

    Raises:
        ValueError: it is not UTF-8.
    """
    try:
        return utf8_word(os.environ.get("AMQP_URL", "")) or None
    except ValueError as error:
        raise ValueError(f"AMQP_URL cannot be read: {error}") from None


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {type(value).__name__}")
    if not is_unicode(value):
        # Later, an error of the encoder would show all of it.
        raise ValueError(f"{name} has characters in it that are not Unicode")


def _of_settings(
    amqp_host: str | None,
    amqp_port: int | None,
    user: str | None,
    password: str | None,
    vhost: str | None,
) -> Endpoint:
    """Return the endpoint for single settings, as `endpoint` takes them."""
    host, port = _host_and_port(amqp_host or "127.0.0.1", amqp_port or _PORTS["amqp"])
    if not _may_be_host(host):
        several = "; several hosts are given in a url" if "," in host else ""
        raise ValueError(f"amqp_host must be the name or the address of a host{several}")
    return Endpoint(
        hosts=((host, port),),
        user="guest" if user is None else user,
        password="guest" if password is None else password,
        vhost=_checked_vhost(vhost or "") or "/",
    )


def _of_environment() -> tuple[Endpoint, bool, dict[str, str]]:
    url = url_of_environment()
    try:
        return _parse_url(url or DEFAULT_URL)
    except ValueError as error:
        raise ValueError(f"AMQP_URL in the environment: {error}") from None


def _replace(parsed: Endpoint, changes: dict[str, object]) -> Endpoint:
    values = {name: getattr(parsed, name) for name in parsed.__dataclass_fields__}
    return Endpoint(**{**values, **changes})


def _seconds(name: str, value: float) -> float:
    check_number(name, value)
    if not 0 <= value < 1e6:
        raise no_seconds(name, value)
    if value == 0 and name not in _SWITCHED_OFF_BY_0:
        raise ValueError(f"{name} must be more than 0 seconds")
    return float(value)


def _parse_url(url: str) -> tuple[Endpoint, bool, dict[str, str]]:
    # Errors from here on name the part of the URL, and never show it: it may hold a password.
    scheme, separator, rest = url.strip().partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _PORTS:
        quoted = ", and not with a quotation mark" if scheme.startswith(("'", '"')) else ""
        raise ValueError(f"the broker's URL must begin with amqp:// or amqps://{quoted}")
    if any(unicodedata.category(character) == "Cc" for character in rest):
        raise ValueError("the broker's URL has a line end or another control character in it")
    if "#" in rest:
        raise ValueError("a # in the broker's URL must be written as %23")
    # Not by urlsplit, whose errors show the text.
    before, _, query = rest.partition("?")
    login_and_hosts, _, path = before.partition("/")
    if "@" in path or "@" in query:
        # Otherwise the rest of a password would be taken for a vhost, and shown.
        raise ValueError(
            "in the user and password of the broker's URL, / must be written as %2F and ? as %3F;"
            " behind the host, @ must be written as %40"
        )
    userinfo, at, hostlist = login_and_hosts.rpartition("@")
    user, colon, password = userinfo.partition(":")
    items = hostlist.split(",")
    hosts = tuple(_parse_host(item, _PORTS[scheme], alone=len(items) == 1) for item in items)
    if "/" in path:
        raise ValueError("a slash in the name of a vhost must be written as %2f in the URL")
    values: dict[str, object] = {}
    files = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in _NUMBER_OPTIONS:
            try:
                values[_NUMBER_OPTIONS[name]] = _seconds(name, float(value))
            except ValueError:
                more = "" if name in _SWITCHED_OFF_BY_0 else ", more than 0"
                raise ValueError(f"{name} in the broker's URL must be seconds{more}") from None
        elif name in TlsFiles._fields:
            files[name] = value
        else:
            known = ", ".join([*_NUMBER_OPTIONS, *TlsFiles._fields])
            raise ValueError(
                f"unknown option {printable(name, 50)!r} in the broker's URL; known are {known}"
            )
    parsed = Endpoint(
        hosts=hosts,
        user=unquote(user) if at else "guest",
        password=unquote(password) if colon else "guest",
        vhost=_checked_vhost(unquote(path)) or "/",
    )
    return _replace(parsed, values), scheme == "amqps", files


def _host_and_port(host: str, port: int) -> tuple[str, int]:
    """Return the host and the port of `host`, `host:port`, `[address]:port` or an address.

    Two colons without brackets mean an IPv6 address without a port.
    """
    name, colon, digits = host.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    if not colon or (":" in name and not name.endswith("]")):
        return host, port
    if not (digits.isascii() and digits.isdigit() and 0 < int(digits) < 65536):
        raise ValueError(f"the port of amqp_host must be 1 to 65535, not {repr_of(digits)}")
    return name.removeprefix("[").removesuffix("]") or "127.0.0.1", int(digits)


def _parse_host(item: str, default_port: int, *, alone: bool) -> tuple[str, int]:
    try:
        parts = urlsplit("//" + item)
        port = parts.port
        host = unquote(parts.hostname or "")
    except ValueError:
        raise ValueError("the host or port in the broker's URL cannot be understood") from None
    if port == IN_MEMORY or (port is not None and default_port == IN_MEMORY):
        raise ValueError(f"the broker's URL cannot have the port {port}")
    if not host and not alone:
        # This machine is not meant where a variable is empty, or a comma too many.
        raise ValueError("one of the hosts in the broker's URL is empty")
    if default_port != IN_MEMORY and not _may_be_host(host):
        raise ValueError("a host in the broker's URL is neither a name nor an address")
    return host or "127.0.0.1", default_port if port is None else port


def _may_be_host(name: str) -> bool:
    """Return whether a text can be looked up as the name of a host, or is an address.

    For what cannot, each attempt to connect would fail, and gevent print a traceback.
    """
    if "," in name or any(each.isspace() or not each.isprintable() for each in name):
        return False
    try:
        name.encode("idna")
    except UnicodeError:
        # A part between two dots is empty or too long, or has characters that no name has.
        return False
    return True


def _checked_vhost(name: str) -> str:
    """Return the name of a vhost.

    Raises:
        ValueError: it is too long to be sent.
    """
    if len(name) > _LONGEST_VHOST or len(name.encode("utf-8")) > _LONGEST_VHOST_BYTES:
        raise ValueError(f"the name of a vhost has at most {_LONGEST_VHOST} characters")
    return name
