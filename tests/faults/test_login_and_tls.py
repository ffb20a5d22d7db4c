"""Logins, TLS, and what a role needs to be allowed (B-95 to B-99, C-60 to C-66)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import gevent
import gevent.ssl as ssl
import pytest
from gevent import socket
from gevent.event import Event
from gevent.server import StreamServer

import amphora
from tests.faults import whole
from tests.faults.certificates import Authority, Certificate
from tests.faults.proxy import Proxy
from tests.faults.rig import Rig
from tests.support.rabbitmq import RabbitNode
from tests.support.waiting import wait_until

RECIPE = Path(__file__).parents[2] / "docs" / "how-to" / "secure.rst"


@pytest.mark.case("B-95", short=True)
@pytest.mark.slow
def test_a_bad_password_is_told_at_once_and_not_tried_all_the_time(rig: Rig) -> None:
    proxy = rig.proxy()
    client = rig.client_here(url=f"amqp://guest:wrong-word@127.0.0.1:{proxy.port}/")
    rig.fault("a bad password")
    for _ in range(3):
        told = rig.one_here(client)
        assert (told.outcome, told.executed) == ("AuthenticationError", False)
        assert "wrong-word" not in told.text
    gevent.sleep(whole(6.0, 2.0))
    # Each of the two connections, at once and every five seconds.
    assert proxy.accepted <= 6
    client.close()
    rig.settle(errors=("AuthenticationError",))


@pytest.mark.case("B-95")
@pytest.mark.slow
def test_a_password_that_is_changed_is_told_when_the_connection_is_lost(
    rig: Rig, node: RabbitNode
) -> None:
    node.add_user("someone", "first-word")
    node.permit("someone", ".*", ".*", ".*")
    try:
        rig.server_here()
        url = f"amqp://someone:first-word@127.0.0.1:{node.port}/"
        client = rig.client_here(url=url, timeout=10.0)
        assert rig.one_here(client).outcome == "ok"
        rig.fault("the password is changed")
        node.ctl("change_password", "someone", "second-word")
        assert rig.one_here(client).outcome == "ok"
        node.close_all_connections()
        told = rig.one_here(client)
        assert told.outcome == "AuthenticationError"
        node.ctl("change_password", "someone", "first-word")
        wait_until(lambda: client.state == "connected", timeout=15.0)
        assert rig.one_here(client).outcome == "ok"
        rig.settle(errors=("AuthenticationError",))
    finally:
        node.delete_user("someone")


@pytest.mark.case("B-96")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("vhost", "written"), [("a/b", "a%2fb"), ("ü ?#%", "%C3%BC%20%3F%23%25"), ("/", "%2F")]
)
def test_a_vhost_may_have_any_name(rig: Rig, node: RabbitNode, vhost: str, written: str) -> None:
    rig.fault(f"the vhost {vhost}")
    if vhost != "/":
        node.ctl("add_vhost", vhost)
        node.permit("guest", ".*", ".*", ".*", vhost=vhost)
    try:
        url = f"amqp://guest:guest@127.0.0.1:{node.port}/{written}"
        rig.server_here(url=url)
        assert rig.one_here(rig.client_here(url=url)).outcome == "ok"
        assert rig.one_here(rig.client_here(url=url + "x", timeout=5.0)).outcome in (
            "AuthenticationError"
        )
        rig.settle(errors=("AuthenticationError",))
    finally:
        if vhost != "/":
            node.ctl("delete_vhost", vhost)


# -- TLS ----------------------------------------------------------------------------------------


class TlsFront:
    """Speaks TLS to clients, and plainly to the broker behind it."""

    def __init__(
        self, port: int, certificate: Certificate, change: Callable[[ssl.SSLContext], None]
    ) -> None:
        self.heard = b""
        self._port = port
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.cert, certificate.key)
        change(context)
        self.server = StreamServer(("127.0.0.1", 0), self._serve)
        self._context = context
        self.server.start()

    @property
    def port(self) -> int:
        return int(self.server.server_port or 0)

    def close(self) -> None:
        self.server.stop(timeout=1)

    def _serve(self, sock: socket.socket, _: tuple[str, int]) -> None:
        try:
            with (
                closing(self._context.wrap_socket(sock, server_side=True)) as client,
                closing(socket.create_connection(("127.0.0.1", self._port))) as broker,
            ):
                down = gevent.spawn(self._pass_on, broker, client)
                while data := client.recv(65536):
                    self.heard += data
                    broker.sendall(data)
                down.kill()
        except OSError:
            sock.close()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def front(rig: Rig) -> Iterator[Callable[..., TlsFront]]:
    made: list[TlsFront] = []

    def make(
        certificate: Certificate, change: Callable[[ssl.SSLContext], None] = lambda context: None
    ) -> TlsFront:
        made.append(TlsFront(rig.port, certificate, change))
        return made[-1]

    yield make
    for each in made:
        each.close()


MakeFront = Callable[..., TlsFront]


def url_of(port: int, authority: Authority, options: str = "") -> str:
    return f"amqps://guest:guest@127.0.0.1:{port}/%2F?cafile={authority.itself.cert}{options}"


@pytest.mark.case("B-98", short=True)
@pytest.mark.slow
def test_a_good_certificate_is_believed(rig: Rig, authority: Authority, front: MakeFront) -> None:
    rig.server_here()
    rig.fault("TLS")
    found = front(authority.sign("good"))
    client = rig.client_here(url=url_of(found.port, authority))
    assert rig.one_here(client).outcome == "ok"
    client.close()
    rig.settle()


BAD = {
    "expired": ("expired", lambda a: a.sign("expired", days=-1)),
    "wrong host": ("match", lambda a: a.sign("elsewhere", "DNS:elsewhere.example")),
    "unknown authority": ("self-signed|unable to get|verify", lambda a: a.self_signed("stranger")),
    "no names": ("match", lambda a: a.sign("nameless", None)),
}


@pytest.mark.case("B-98", short=True)
@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_certificate_is_refused_before_the_password_is_sent(
    rig: Rig, authority: Authority, front: MakeFront, kind: str
) -> None:
    words, make = BAD[kind]
    rig.fault(kind)
    found = front(make(authority))
    client = rig.client_here(url=url_of(found.port, authority), timeout=3.0)
    told = rig.one_here(client)
    assert told.executed is False
    assert "certificate" in told.text
    assert re.search(words, told.text)
    assert found.heard == b""
    client.close()
    rig.settle(errors=("NoResult",))


def old_tls(context: ssl.SSLContext) -> None:
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        # That it is deprecated is why it must be refused.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1


def client_certificates(context: ssl.SSLContext) -> None:
    context.verify_mode = ssl.CERT_REQUIRED


@pytest.mark.case("B-98")
@pytest.mark.slow
@pytest.mark.parametrize("change", [old_tls, client_certificates])
def test_a_server_that_asks_too_little_or_too_much_is_refused(
    rig: Rig,
    authority: Authority,
    front: MakeFront,
    change: Callable[[ssl.SSLContext], None],
) -> None:
    rig.fault(change.__name__)
    found = front(authority.sign(change.__name__), change)
    client = rig.client_here(url=url_of(found.port, authority), timeout=3.0)
    told = rig.one_here(client)
    assert told.executed is False
    assert b"guest" not in found.heard
    client.close()
    rig.settle(errors=("NoResult",))


@pytest.mark.case("B-98")
@pytest.mark.slow
def test_a_client_certificate_is_shown_when_it_is_asked_for(
    rig: Rig, authority: Authority, front: MakeFront
) -> None:
    own = authority.sign("client")

    def ask(context: ssl.SSLContext) -> None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.itself.cert)

    rig.server_here()
    rig.fault("a client certificate is asked for")
    found = front(authority.sign("asking"), ask)
    options = f"&certfile={own.cert}&keyfile={own.key}"
    client = rig.client_here(url=url_of(found.port, authority, options))
    assert rig.one_here(client).outcome == "ok"
    client.close()
    rig.settle()


@pytest.mark.case("B-98")
@pytest.mark.slow
def test_tls_to_a_plain_port_never_falls_back(rig: Rig, authority: Authority) -> None:
    rig.fault("no TLS on the port")
    proxy = rig.proxy()
    client = rig.client_here(url=url_of(proxy.port, authority), timeout=7.0, connect_timeout=2.0)
    told = rig.one_here(client)
    assert told.executed is False
    client.close()
    rig.settle(errors=("NoResult",))


@pytest.mark.case("B-99")
@pytest.mark.slow
@pytest.mark.time_limit(120)
@pytest.mark.parametrize("direction", ["up", "down"])
def test_tls_that_is_cut_anywhere_is_made_again(
    rig: Rig, authority: Authority, front: MakeFront, direction: str
) -> None:
    rig.server_here()
    found = front(authority.sign(f"cut-{direction}"))
    with Proxy(found.port) as proxy:
        for size in range(1, 4_000, 400):
            client = rig.client_here(url=url_of(proxy.port, authority))
            before = proxy.faults
            getattr(proxy, direction).cut_after = size
            rig.fault(f"TLS is cut after {size} bytes")
            pending = rig.many_here(client, 10)
            wait_until(lambda before=before: proxy.faults > before)
            getattr(proxy, direction).cut_after = None
            gevent.joinall(pending)
            assert {greenlet.get().outcome for greenlet in pending} == {"ok"}
            client.close()
    rig.settle(duplicates=100, remains=True)


@pytest.mark.case("B-99")
@pytest.mark.slow
def test_tls_that_stalls_in_its_handshake_ends_by_the_deadline(
    rig: Rig, authority: Authority
) -> None:
    rig.fault("a TLS handshake without an end")
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = url_of(silent.getsockname()[1], authority)
        client = rig.client_here(url=url, timeout=3.0, connect_timeout=1.0)
        told = rig.one_here(client)
        assert (told.outcome, told.executed) == ("NoResult", False)
        assert "no answer within 1 s" in told.text
        client.close()
    rig.settle(errors=("NoResult",))


@pytest.mark.case("B-99")
@pytest.mark.slow
def test_bodies_around_the_edges_of_tls_records_make_the_round(
    rig: Rig, authority: Authority, front: MakeFront
) -> None:
    server = rig.server_here()
    server.add_function(lambda text: text, name="same")
    rig.fault("TLS records of 16 kB")
    found = front(authority.sign("records"))
    client = rig.client_here(url=url_of(found.port, authority))
    for size in (*range(16_200, 16_400, 17), 1 << 20):
        assert client.call.same("x" * size) == "x" * size
    assert rig.one_here(client).outcome == "ok"
    client.close()
    rig.settle()


# -- who may do what ------------------------------------------------------------------------------


def recipe(role: str) -> list[str]:
    """Return the three patterns that the documentation gives a role, for the namespace `math`."""
    text = RECIPE.read_text()
    found = re.search(rf"rabbitmqctl set_permissions {role} '(.*)' '(.*)' '(.*)'", text)
    assert found is not None, f"{RECIPE.name} has no permissions for {role}"
    return list(found.groups())


@pytest.mark.case("C-66", short=True)
@pytest.mark.slow
def test_the_documented_permissions_are_enough_and_no_more(rig: Rig, node: RabbitNode) -> None:
    urls = {}
    for role in ("client", "server"):
        node.add_user(role, "secret-word")
        patterns = [pattern.replace("math", rig.namespace) for pattern in recipe(role)]
        node.permit(role, *patterns)
        urls[role] = f"amqp://{role}:secret-word@127.0.0.1:{node.port}/"
    try:
        rig.fault("users who may do little")
        server = rig.server_here(url=urls["server"])
        wait_until(lambda: server.ready)
        client = rig.client_here(url=urls["client"])
        assert rig.one_here(client).outcome == "ok"
        client.create_new_request_queue("alice", x_expires=30.0)
        receiving = server.receive_from_queue("alice", block=False)
        assert rig.one_here(client, routing_key="alice").outcome == "ok"
        receiving.stop()
        # The client may tell the server that a call is cancelled.
        server.add_function(Event().wait, name="hold", cancellable=True)
        held = client.defer.hold()
        wait_until(lambda: server.running == 1)
        held.cancel()
        wait_until(lambda: server.running == 0)
        assert server.statistics.cancelled == 1
        # Requests that come back are counted on the broker.
        pending = rig.many_here(client, 1, 1.0)
        wait_until(lambda: server.running == 1)
        node.close_all_connections()
        assert pending[0].get().outcome == "ok"
        stranger = amphora.AmqpRpcClient("other", url=urls["client"], timeout=20.0)
        with stranger, pytest.raises(amphora.AmphoraError, match="access"):
            stranger.call.anything()
        with amphora.Session(urls["client"]) as session:
            channel = session.channel()
            with pytest.raises(amphora.ChannelClosed, match="403"):
                channel.queue_declare("rpc_other_request")
        # What a client may not touch of the control exchange.
        with amphora.Session(urls["client"]) as session:
            control = f"rpc_{rig.namespace}_control"
            for touch in (
                lambda channel: channel.exchange_delete(control),
                lambda channel: channel.queue_declare(f"rpc_{rig.namespace}_mine_control"),
            ):
                with pytest.raises(amphora.AccessRefused):
                    touch(session.channel())
        rig.settle(duplicates=1)
    finally:
        for role in urls:
            node.delete_user(role)
