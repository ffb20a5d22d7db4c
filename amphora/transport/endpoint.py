"""Where a broker is and how to log in: hosts, credentials, TLS, limits.

The password is kept out of `repr`, of errors and of logs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import gevent.ssl

from amphora.wire.content import DEFAULT_MAX_MESSAGE_SIZE

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"
# The broker drops a silent client after three of these; RabbitMQ advises 5 to 20 seconds
# (https://www.rabbitmq.com/docs/heartbeats).
DEFAULT_HEARTBEAT = 10.0
DEFAULT_CONNECT_TIMEOUT = 5.0
DEFAULT_FRAME_MAX = 131072
DEFAULT_CHANNEL_MAX = 2047
# A method that the broker has not answered in this time counts as failed.
DEFAULT_METHOD_TIMEOUT = 10.0

# What stands for the port of a broker in this very process, which has none.
IN_MEMORY = 0

_PORTS = {"amqp": 5672, "amqps": 5671, "memory": IN_MEMORY}
MEMORY_SCHEME = "memory://"
_NUMBER_OPTIONS = {"heartbeat": "heartbeat", "connection_timeout": "connect_timeout"}
_FILE_OPTIONS = ("cafile", "certfile", "keyfile")


@dataclass(frozen=True)
class Endpoint:
    """Everything that is needed to open a connection.

    `hosts` are tried in random order.  `ssl_context` is a `gevent.ssl.SSLContext`, None for a
    connection without TLS.  `heartbeat` and `connect_timeout` are seconds; a heartbeat of 0
    switches heartbeats off.
    """

    hosts: tuple[tuple[str, int], ...]
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    vhost: str = "/"
    ssl_context: gevent.ssl.SSLContext | None = field(default=None, repr=False)
    heartbeat: float = DEFAULT_HEARTBEAT
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT
    method_timeout: float = DEFAULT_METHOD_TIMEOUT
    frame_max: int = DEFAULT_FRAME_MAX
    channel_max: int = DEFAULT_CHANNEL_MAX
    max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE

    def __str__(self) -> str:
        scheme = "amqps" if self.ssl_context else "amqp"
        hosts = ",".join(address(host, port) for host, port in self.hosts)
        if hosts.startswith(MEMORY_SCHEME):
            scheme, _, hosts = hosts.partition("://")
        vhost = "" if self.vhost == "/" else quote(self.vhost, safe="")
        return f"{scheme}://{quote(self.user, safe='')}:***@{hosts}/{vhost}"


def address(host: str, port: int) -> str:
    """Return `host:port` as it is written in a URL, or `memory://name`."""
    if port == IN_MEMORY:
        return f"{MEMORY_SCHEME}{host}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
    """Return the endpoint that a URL or single settings describe.

    Args:
        url: `amqp://user:password@host:port/vhost`, with `amqps` for TLS and several
            `host:port` separated by commas.  Options behind `?` are `heartbeat` and
            `connection_timeout` (seconds), `cafile`, `certfile` and `keyfile`.  A missing or
            empty vhost is `/`; write a slash in a name as `%2f`.  `memory://name` is a broker in
            this process, made by `amphora.testing.Broker`.  Without any setting, the
            environment variable `AMQP_URL` counts, else a broker on this machine.
        amqp_host, amqp_port, amqp_user, amqp_password, amqp_vhost: the same as single
            settings; they cannot be mixed with `url`.
        heartbeat: seconds between signs of life; 0 switches them off.
        connect_timeout: seconds for one host to be reached and logged in to.
        max_message_size: the largest body to send or take, in bytes, 16 MiB if not given; the
            broker's own limit may be lower.
        ssl_context: a `gevent.ssl.SSLContext` instead of the verifying default.
        insecure_skip_tls_verification: accept any certificate.  Whoever sits between here and
            the broker can then read and change everything.

    Raises:
        ValueError: a setting cannot be understood; the text never has the password.
    """
    settings = {
        "amqp_host": amqp_host,
        "amqp_port": amqp_port,
        "amqp_user": amqp_user,
        "amqp_password": amqp_password,
        "amqp_vhost": amqp_vhost,
    }
    given = [name for name, value in settings.items() if value is not None]
    if url is not None and given:
        raise ValueError(f"give either url or {', '.join(given)}, not both")
    if url is None and not given:
        url = os.environ.get("AMQP_URL") or DEFAULT_URL
    if url is None:
        parsed = Endpoint(
            hosts=((amqp_host or "127.0.0.1", amqp_port or _PORTS["amqp"]),),
            user="guest" if amqp_user is None else amqp_user,
            password="guest" if amqp_password is None else amqp_password,
            vhost="/" if amqp_vhost is None else amqp_vhost,
        )
        tls = False
        files: dict[str, str] = {}
    else:
        parsed, tls, files = _parse_url(url)
    changes: dict[str, object] = {}
    if heartbeat is not None:
        changes["heartbeat"] = _seconds("heartbeat", heartbeat)
    if connect_timeout is not None:
        changes["connect_timeout"] = _seconds("connect_timeout", connect_timeout)
    if max_message_size is not None:
        if isinstance(max_message_size, bool) or not max_message_size > 0:
            raise ValueError(
                f"max_message_size must be a number of bytes, not {max_message_size!r}"
            )
        changes["max_message_size"] = max_message_size
    if ssl_context is not None:
        if not isinstance(ssl_context, gevent.ssl.SSLContext):
            raise ValueError("ssl_context must be made by gevent.ssl, not by ssl")
        changes["ssl_context"] = ssl_context
    elif tls:
        changes["ssl_context"] = _tls_context(files, insecure_skip_tls_verification)
    elif insecure_skip_tls_verification or files:
        raise ValueError("TLS settings need an amqps:// URL")
    return _replace(parsed, changes)


def _replace(parsed: Endpoint, changes: dict[str, object]) -> Endpoint:
    values = {name: getattr(parsed, name) for name in parsed.__dataclass_fields__}
    return Endpoint(**{**values, **changes})


def _tls_context(files: dict[str, str], skip_verification: bool) -> gevent.ssl.SSLContext:
    # Not create_default_context: without monkey-patching it makes a context of the standard
    # library, whose sockets would block the hub.  A client context verifies by default.
    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
    if "cafile" in files:
        context.load_verify_locations(files["cafile"])
    else:
        context.load_default_certs()
    context.minimum_version = gevent.ssl.TLSVersion.TLSv1_2
    if "certfile" in files:
        context.load_cert_chain(files["certfile"], files.get("keyfile"))
    if skip_verification:
        context.check_hostname = False
        context.verify_mode = gevent.ssl.CERT_NONE
    return context


def _seconds(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise ValueError(f"{name} must be a number of seconds, not {value!r}")
    return float(value)


def _parse_url(url: str) -> tuple[Endpoint, bool, dict[str, str]]:
    # Errors from here on name the part, never the URL: it may hold a password.
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _PORTS:
        raise ValueError("the broker's URL must begin with amqp:// or amqps://")
    parts = urlsplit("//" + rest)
    if parts.fragment or "#" in rest:
        raise ValueError("a # in the broker's URL must be written as %23")
    userinfo, at, hostlist = parts.netloc.rpartition("@")
    user, colon, password = userinfo.partition(":")
    hosts = tuple(_parse_host(item, _PORTS[scheme]) for item in hostlist.split(","))
    path = parts.path[1:]
    if "/" in path:
        raise ValueError("a slash in the name of a vhost must be written as %2f in the URL")
    values: dict[str, object] = {}
    files = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in _NUMBER_OPTIONS:
            try:
                values[_NUMBER_OPTIONS[name]] = _seconds(name, float(value))
            except ValueError:
                raise ValueError(f"{name} in the broker's URL must be seconds") from None
        elif name in _FILE_OPTIONS:
            files[name] = value
        else:
            known = ", ".join([*_NUMBER_OPTIONS, *_FILE_OPTIONS])
            raise ValueError(f"unknown option {name!r} in the broker's URL; known are {known}")
    parsed = Endpoint(
        hosts=hosts,
        user=unquote(user) if at else "guest",
        password=unquote(password) if colon else "guest",
        vhost=unquote(path) or "/",
    )
    return _replace(parsed, values), scheme == "amqps", files


def _parse_host(item: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit("//" + item)
        port = parts.port
        host = parts.hostname
    except ValueError:
        raise ValueError("the host or port in the broker's URL cannot be understood") from None
    if port == IN_MEMORY or (port is not None and default_port == IN_MEMORY):
        raise ValueError(f"the broker's URL cannot have the port {port}")
    return unquote(host or "127.0.0.1"), default_port if port is None else port
