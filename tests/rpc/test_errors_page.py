"""The page with the errors by their names has all of them, and shows what they say."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic

import gevent
import pytest
from gevent import GreenletExit
from pamqp import commands

import amphora
from amphora import AmphoraError, Session, errors, wait
from amphora.rpc.server.requests.attempts import Attempts
from amphora.transport.channels.delivery import Delivery
from amphora.transport.channels.refusals import refusal
from amphora.transport.publishing.outgoing import Outgoing
from amphora.wire.codec import Deliver
from amphora.wire.content import Message
from amphora.wire.properties import Properties
from amphora.wire.templates import PropertiesTemplate
from tests.support import pages
from tests.support.brokers import Broker
from tests.support.rpc import Gate, MakeClient, MakeServer

PAGE = pages.page("reference/errors")
# What `executed` is, in the words of the page.
EXECUTED = {False: "no", True: "yes", None: "maybe"}


@dataclass
class Shop:
    """A namespace with a broker, and what makes servers and clients of it."""

    broker: Broker
    server: MakeServer
    client: MakeClient


Scene = Callable[[Shop], object]


def sections() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the name of each error of the page, and the fields of its section."""
    for title, body in re.findall(r"^(\w+)\n-+\n(.*?)(?=^\w+\n-+\n|\Z)", PAGE, re.S | re.M):
        fields = re.findall(r"^:(\w[\w ]*):((?: .*\n|    .*\n)+)", body, re.M)
        yield title, {name: " ".join(text.split()) for name, text in fields}


def test_the_page_has_each_error_and_says_whether_its_call_was_executed() -> None:
    told = dict(sections())
    public = {
        name
        for name in {*errors.__all__, *amphora.__all__}
        if isinstance(found := getattr(errors, name, getattr(amphora, name, None)), type)
        and issubclass(found, BaseException)
    }
    assert told.keys() == public
    for name, fields in told.items():
        kind = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, AmphoraError):
            assert EXECUTED[kind.executed] in words(fields["Executed"]), name
            assert fields["To do"], name


def words(text: str) -> list[str]:
    """Return the words of a text."""
    return re.findall(r"\w+", text)


def unknown_function(shop: Shop) -> object:
    def find(name: str) -> str:
        return name

    shop.server(find)
    return shop.client().call.fnd("Alice")


def raised(shop: Shop) -> object:
    def find(name: str) -> None:
        raise KeyError(name)

    shop.server(find)
    return shop.client().call.find("Alice")


def unsendable(shop: Shop) -> object:
    class Customer:
        pass

    def find(name: str) -> object:
        return Customer()

    shop.server(find)
    return shop.client().call.find("Alice")


def no_server(shop: Shop) -> object:
    client = shop.client(timeout=1.0)
    # Where the machine is busy, to connect takes longer than that.
    for link in (client.session.publishing, client.session.consuming):
        link.start()
        link.wait_connected(40.0)
    return client.call.find("Alice")


def asked_first(shop: Shop) -> object:
    return shop.client().call(wait_for_server=0).find("Alice")


def without_queue(shop: Shop) -> object:
    shop.server()
    return shop.client().call(routing_key="alice").find("Alice")


def crowded(shop: Shop) -> object:
    client = shop.client(max_pending=1, when_full="fail")
    first = client.defer.find("Alice")
    try:
        return client.call.find("Bob")
    finally:
        first.cancel()


def cancelled(shop: Shop) -> object:
    result = shop.client().defer.find("Alice")
    result.cancel()
    return result.get()


def closed(shop: Shop) -> object:
    client = shop.client()
    result = client.defer.find("Alice")
    client.close()
    return result.get()


def denied(shop: Shop) -> object:
    shop.server(serve=False).add_function(lambda: None, "find")
    server = shop.server(serve=False)
    server.add_function(len, "find", allow={"billing"})
    server.serve()
    return shop.client().call.find("Alice")


def busy(shop: Shop) -> object:
    gate = Gate()
    server = shop.server(serve=False, concurrency=4)
    server.add_function(gate.hold, "find", concurrency=1)
    server.serve()
    client = shop.client()
    held = [client.defer.find(name) for name in ("Alice", "Bob", "Carol")]
    try:
        return client.call.find("Dan")
    finally:
        gate.open()
        wait(held)


def too_long(shop: Shop) -> object:
    server = shop.server(serve=False)
    server.add_function(gevent.sleep, "find", timeout=0.1)
    server.serve()
    return shop.client().call.find(60)


def server_stopped(shop: Shop) -> object:
    gate = Gate()
    server = shop.server(serve=False)
    server.add_function(gate.hold, "find", ack="early")
    server.serve()
    result = shop.client().defer.find("Alice")
    while not gate.entered:
        gevent.sleep(0.01)
    server.stop(timeout=0)
    return result.get()


def stream_stopped(shop: Shop) -> object:
    gate = Gate()

    def find(name: str) -> Iterator[str]:
        yield name
        gate.hold()

    server = shop.server(find)
    stream = shop.client().stream.find("Alice")
    next(stream)
    while not gate.entered:
        gevent.sleep(0.01)
    server.stop(timeout=0)
    return next(stream)


def wrong_password(shop: Shop) -> object:
    with Session(amqp_host=f"127.0.0.1:{shop.broker.port}", amqp_password="wrong") as session:
        return session.channel()


def no_such_queue(shop: Shop) -> object:
    with Session(shop.broker.url) as session:
        return session.channel().consume("orders", print, "tag")


def other_settings(shop: Shop) -> object:
    client = shop.client()
    client.create_new_request_queue("alice", x_expires=60)
    try:
        return client.create_new_request_queue("alice", x_expires=90)
    finally:
        client.remove_request_queue("alice")


def refused(shop: Shop) -> object:
    template = PropertiesTemplate(Properties())
    request = Outgoing("", "", template, "1", b"", needs=(), expires_at=monotonic())
    request.refused = monotonic() - 5
    request.confirmed(accepted=False, returned=None)
    assert request.error is not None
    raise request.error


def given_up(shop: Shop) -> None:
    message = Message(Deliver("tag", 1, True, "exchange", ""), Properties(message_id="1"), b"body")
    with Session(shop.broker.url) as session:
        request = Delivery.of(message, session.consuming.wait_connected(20).channel())
        for worker_id in ("one", "two", "three"):
            attempts = Attempts(
                session, "shop", worker_id, limit=3, dead_letter=False, queue_arguments={}
            )
            # Each time something ends the server in the middle of it.
            with contextlib.suppress(GreenletExit), attempts.attempt(request):
                raise GreenletExit


def no_permission(shop: Shop) -> object:
    text = (
        "ACCESS_REFUSED - read access to queue 'rpc_shop_request' in vhost '/' refused for user"
        " 'web'"
    )
    raise refusal(commands.Channel.Close(403, text, 60, 20))


SCENES: dict[str, Scene] = {
    "AccessRefused": no_permission,
    "AuthenticationError": wrong_password,
    "Busy": busy,
    "Cancelled": cancelled,
    "ChannelClosed": no_such_queue,
    "ConnectionLost": closed,
    "Denied": denied,
    "Inequivalent": other_settings,
    "NoResult": no_server,
    "NoServer": asked_first,
    "Overloaded": crowded,
    "PoisonRequest": given_up,
    "Rejected": refused,
    "RemoteException": raised,
    "ServerLost": server_stopped,
    "StreamLost": stream_stopped,
    "TimedOut": too_long,
    "Unroutable": without_queue,
    "WrongRequest": unknown_function,
    "WrongResult": unsendable,
}


@pytest.mark.parametrize("name", SCENES)
def test_an_error_says_what_the_page_shows(
    name: str, broker: Broker, namespace: str, make_server: MakeServer, make_client: MakeClient
) -> None:
    shop = Shop(broker, make_server, make_client)
    with pytest.raises(getattr(errors, name)) as caught:
        SCENES[name](shop)
    said = str(caught.value).replace(namespace, "shop").replace(f":{broker.port}", ":5672")
    shown = dict(sections())[name]
    assert shown["Says"] == f"``{said}``"
    assert EXECUTED[caught.value.executed] in words(shown["Executed"])


def test_each_sentence_of_the_page_is_said_by_a_test() -> None:
    assert {name for name, fields in sections() if "Says" in fields} == SCENES.keys()
