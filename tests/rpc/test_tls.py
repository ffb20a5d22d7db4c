"""Brokers behind TLS: verified before a byte of the password is sent, and then as any other."""

from __future__ import annotations

import datetime
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gevent.ssl
import pytest
import trustme
from gevent import socket
from gevent.server import StreamServer

from amphora import AmqpRpcClient, NoResult
from amphora.transport.connections.endpoint import endpoint
from tests.support.brokers import Broker
from tests.support.rpc import MakeServer, add
from tests.support.tls import TlsProxy
from tests.support.waiting import wait_until

MakeProxy = Callable[..., TlsProxy]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """The authority that the broker's certificate is from."""
    return trustme.CA()


@pytest.fixture
def cafile(authority: trustme.CA, tmp_path: Path) -> Path:
    """The file with which a client trusts the authority."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def make_proxy(broker: Broker, authority: trustme.CA) -> Iterator[MakeProxy]:
    """Put TLS in front of the broker, with a certificate for 127.0.0.1 unless another is given."""
    with ExitStack() as made:

        def make(
            certificate: trustme.LeafCert | None = None,
            configure: Callable[[gevent.ssl.SSLContext], object] = lambda context: None,
        ) -> TlsProxy:
            context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_SERVER)
            (certificate or authority.issue_cert("127.0.0.1")).configure_cert(context)
            configure(context)
            return made.enter_context(TlsProxy(broker.url, context))

        yield make


def refusal(namespace: str, url: str, **settings: Any) -> str:
    """Return why a client does not connect: what it tells the caller at its deadline."""
    with AmqpRpcClient(namespace, url=url, **settings) as client:
        waiting = client.defer.add(1, 2)
        wait_until(lambda: client.session.publishing.error)
        with pytest.raises(NoResult) as caught:
            client.call(timeout=0.05).add(1, 2)
        assert not waiting.ready()
    assert caught.value.executed is False
    return str(caught.value)


def test_a_broker_whose_certificate_verifies_is_used(
    make_server: MakeServer, make_proxy: MakeProxy, cafile: Path, namespace: str
) -> None:
    server = make_server(add)
    server.add_function(lambda text: text, name="echo")
    proxy = make_proxy()
    with AmqpRpcClient(namespace, url=f"{proxy.url}?cafile={cafile}") as client:
        results = [client.defer.add(n, n) for n in range(200)]
        assert [result.get() for result in results] == [2 * n for n in range(200)]
        # TLS has records of 16 kB.
        for size in (*range(16_384 - 60, 16_384 + 60, 7), 3 * 16_384, 2_000_000):
            assert len(client.call.echo("x" * size)) == size
        assert repr(client.session) == f"<Session {endpoint(proxy.url)} [connected]>"
    assert proxy.handshakes == 2
    assert proxy.refused == []


def test_a_context_of_the_programs_own_is_used(
    make_server: MakeServer, make_proxy: MakeProxy, authority: trustme.CA, namespace: str
) -> None:
    make_server(add)
    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    with AmqpRpcClient(namespace, url=make_proxy().url, ssl_context=context) as client:
        assert client.call.add(1, 2) == 3


def test_a_lost_connection_comes_back_with_tls(
    make_server: MakeServer, make_proxy: MakeProxy, cafile: Path, namespace: str
) -> None:
    make_server(add)
    proxy = make_proxy()
    with AmqpRpcClient(namespace, url=f"{proxy.url}?cafile={cafile}", timeout=20) as client:
        for n in range(4):
            results = [client.defer.add(n, k) for k in range(20)]
            proxy.cut()
            assert [result.get() for result in results] == [n + k for k in range(20)]


def replace(path: Path, contents: bytes) -> None:
    """Replace a file as renewals do, and as the shell does: another one gets its name."""
    new = path.with_suffix(".new")
    new.write_bytes(contents)
    new.rename(path)


def test_certificates_that_were_replaced_are_used_for_the_next_connection(
    make_server: MakeServer,
    make_proxy: MakeProxy,
    authority: trustme.CA,
    cafile: Path,
    namespace: str,
    tmp_path: Path,
) -> None:
    def ask(context: gevent.ssl.SSLContext) -> None:
        contexts.append(context)
        authority.configure_trust(context)
        context.verify_mode = gevent.ssl.CERT_REQUIRED

    def renew(issuer: trustme.CA, days: int) -> None:
        expiry = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days)
        own = issuer.issue_cert("client@amphora.example", not_after=expiry)
        replace(keyfile, own.private_key_pem.bytes())
        replace(certfile, own.cert_chain_pems[0].bytes())

    contexts: list[gevent.ssl.SSLContext] = []
    certfile, keyfile = tmp_path / "own.pem", tmp_path / "own.key"
    make_server(add)
    proxy = make_proxy(configure=ask)
    renew(authority, days=-1)
    url = f"{proxy.url}?cafile={cafile}&certfile={certfile}&keyfile={keyfile}"
    with AmqpRpcClient(namespace, url=url, timeout=20) as client:
        waiting = client.defer.add(1, 2)
        wait_until(lambda: any("expired" in reason for reason in proxy.refused))
        renew(authority, days=1)
        assert waiting.get() == 3
        # The broker's own, and who vouches for it.
        other = trustme.CA()
        other.issue_cert("127.0.0.1").configure_cert(contexts[0])
        other.configure_trust(contexts[0])
        renew(other, days=1)
        replace(cafile, other.cert_pem.bytes())
        proxy.cut()
        assert client.call.add(3, 4) == 7


def test_files_that_are_being_replaced_are_used_as_they_were(
    make_server: MakeServer,
    make_proxy: MakeProxy,
    cafile: Path,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_server(add)
    proxy = make_proxy()
    before = cafile.read_bytes()
    with AmqpRpcClient(namespace, url=f"{proxy.url}?cafile={cafile}", timeout=20) as client:
        assert client.call.add(1, 2) == 3
        for contents in (b"", before, None, before):
            if contents is None:
                cafile.unlink()
            else:
                replace(cafile, contents)
            connects = client.session.publishing.connects
            proxy.cut()
            wait_until(lambda connects=connects: client.session.publishing.connects > connects)
            assert client.call.add(1, 2) == 3
    told = [each.getMessage() for each in caplog.records if str(cafile) in each.getMessage()]
    assert len(told) == 2
    assert all(text.endswith("; what was read before is used") for text in told)


def test_an_unknown_authority_is_refused_before_anything_is_said(
    make_proxy: MakeProxy, namespace: str, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    proxy = make_proxy()
    for url in (proxy.url, f"{proxy.url}?cafile={other}"):
        assert "its certificate does not verify: unable to get local issuer" in refusal(
            namespace, url
        )
    wait_until(lambda: proxy.refused)
    assert proxy.heard == b""


def test_another_host_is_refused_before_anything_is_said(
    make_proxy: MakeProxy, authority: trustme.CA, cafile: Path, namespace: str
) -> None:
    for certificate in (
        authority.issue_cert("broker.example"),
        authority.issue_cert(common_name="127.0.0.1"),
    ):
        proxy = make_proxy(certificate)
        why = refusal(namespace, f"{proxy.url}?cafile={cafile}")
        assert "its certificate does not verify" in why
        assert "127.0.0.1" in why
        assert proxy.heard == b""


def test_an_expired_certificate_is_refused_before_anything_is_said(
    make_proxy: MakeProxy, authority: trustme.CA, cafile: Path, namespace: str
) -> None:
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    proxy = make_proxy(authority.issue_cert("127.0.0.1", not_after=yesterday))
    why = refusal(namespace, f"{proxy.url}?cafile={cafile}")
    assert "its certificate does not verify: certificate has expired" in why
    assert proxy.heard == b""


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_an_old_version_of_tls_is_refused(
    make_proxy: MakeProxy, cafile: Path, namespace: str
) -> None:
    def only_old(context: gevent.ssl.SSLContext) -> None:
        context.minimum_version = context.maximum_version = gevent.ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")

    proxy = make_proxy(configure=only_old)
    assert "no connection to" in refusal(namespace, f"{proxy.url}?cafile={cafile}")
    assert proxy.heard == b""


def test_a_broker_may_ask_for_a_certificate_of_the_client(
    make_server: MakeServer,
    make_proxy: MakeProxy,
    authority: trustme.CA,
    cafile: Path,
    namespace: str,
    tmp_path: Path,
) -> None:
    def ask(context: gevent.ssl.SSLContext) -> None:
        authority.configure_trust(context)
        context.verify_mode = gevent.ssl.CERT_REQUIRED

    make_server(add)
    proxy = make_proxy(configure=ask)
    own = authority.issue_cert("client@amphora.example")
    certfile, keyfile = tmp_path / "own.pem", tmp_path / "own.key"
    own.cert_chain_pems[0].write_to_path(str(certfile))
    own.private_key_pem.write_to_path(str(keyfile))
    url = f"{proxy.url}?cafile={cafile}&certfile={certfile}&keyfile={keyfile}"
    with AmqpRpcClient(namespace, url=url) as client:
        assert client.call.add(1, 2) == 3
    with AmqpRpcClient(namespace, url=f"{proxy.url}?cafile={cafile}") as client:
        waiting = client.defer.add(1, 2)
        # What it says may be lost with the connection.
        wait_until(lambda: "does not accept" in str(client.session.publishing.error))
        told = str(client.session.publishing.error)
        assert told.endswith(
            "this program's certificate (certfile in the URL): certificate required"
        )
        assert not waiting.ready()


def test_verification_is_switched_off_by_its_long_name_alone_and_that_is_logged(
    make_server: MakeServer,
    make_proxy: MakeProxy,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_server(add)
    proxy = make_proxy()
    with AmqpRpcClient(namespace, url=proxy.url, insecure_skip_tls_verification=True) as client:
        assert client.call.add(1, 2) == 3
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len([record for record in warnings if "not verified" in record.getMessage()]) == 2


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("amqp://localhost?cafile=ca.pem", {}),
        ("amqp://localhost", {"insecure_skip_tls_verification": True}),
        ("amqps://localhost?verify=none", {}),
        ("amqps://localhost?cafile=/no/such/file", {}),
    ],
)
def test_settings_of_tls_that_cannot_be_meant_are_refused(
    namespace: str, url: str, settings: dict[str, Any]
) -> None:
    with pytest.raises((ValueError, OSError)):
        AmqpRpcClient(namespace, url=url, **settings)


def test_tls_never_falls_back_to_plain_text(namespace: str) -> None:
    heard = bytearray()

    def plain(sock: socket.socket, address: object) -> None:
        with sock:
            heard.extend(sock.recv(65536))
            sock.sendall(b"AMQP\x00\x00\x09\x01")
            heard.extend(sock.recv(65536))

    listener = StreamServer(("127.0.0.1", 0), plain)
    listener.start()
    try:
        url = f"amqps://guest:guest@127.0.0.1:{listener.server_port}"
        why = refusal(namespace, url)
        assert re.search(r"no connection to .* does not speak TLS.* begins with amqp://", why)
    finally:
        listener.stop()
    assert heard
    assert b"AMQP" not in heard
    assert b"guest" not in heard


def test_plain_text_to_a_tls_port_is_told(make_proxy: MakeProxy, namespace: str) -> None:
    proxy = make_proxy()
    why = refusal(namespace, f"amqp://guest:guest@127.0.0.1:{proxy.port}")
    assert "the request was not sent" in why
    assert proxy.handshakes == 0


def test_a_handshake_that_stalls_is_given_up(namespace: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"amqps://guest:guest@127.0.0.1:{silent.getsockname()[1]}"
        why = refusal(namespace, url, connect_timeout=0.5)
    assert "no answer within 0.5 s" in why
