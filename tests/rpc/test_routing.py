"""Which queue a request goes to: routing keys, given or computed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import gevent
import pytest
from gevent.event import Event

from amphora import (
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    ChannelClosed,
    ConnectionLost,
    NoResult,
    StreamLost,
    Unroutable,
)
from amphora.rpc.client.management import ManagementClient
from amphora.rpc.client.workers import control
from amphora.rpc.contract import streams
from amphora.rpc.keyed import attaching
from amphora.rpc.server.streams import streaming
from amphora.transport.consuming import rebinding
from amphora.transport.consuming.cheap_queue import CheapQueue
from amphora.transport.publishing.confirmed import publish_confirmed
from amphora.wire.properties import Properties
from tests.rpc.test_naming import HOSTILE
from tests.support.brokers import Broker
from tests.support.rpc import Gate, MakeClient, MakeServer
from tests.support.waiting import wait_until

EXPIRES = 60.0


def show_message(user: str, message: str = "") -> list[str]:
    return [user, message]


@pytest.fixture
def server(make_server: MakeServer) -> AmqpRpcServer:
    return make_server(show_message)


@pytest.fixture
def client(make_client: MakeClient) -> AmqpRpcClient:
    return make_client()


@pytest.fixture
def receive(server: AmqpRpcServer, client: AmqpRpcClient) -> Callable[..., gevent.Greenlet]:
    """Make a queue for a label, and have one call of it handled in the background."""

    def start(label: str) -> gevent.Greenlet:
        client.create_new_request_queue(label, x_expires=EXPIRES)
        return gevent.spawn(server.receive_from_queue, label, max_calls=1, timeout=20)

    return start


Receive = Callable[[str], gevent.Greenlet]


# -- a key given ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["call", "defer", "cast"])
def test_a_routing_key_chooses_the_queue(client: AmqpRpcClient, receive: Receive, way: str) -> None:
    alice, bob = receive("Alice"), receive("Bob")
    proxy = getattr(client, way)(routing_key="Bob")
    answer = proxy.show_message("Bob", "hello")
    if way == "defer":
        answer = answer.get()
    assert answer == (None if way == "cast" else ["Bob", "hello"])
    assert bob.get() == 1
    assert not alice.ready()
    alice.kill()


def test_without_a_routing_key_any_server_gets_the_request(
    server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    assert client.call(routing_key=None).show_message("x", "y") == ["x", "y"]
    assert client.call.show_message("x", "y") == ["x", "y"]


@pytest.mark.parametrize("durable", [True, False])
def test_an_ordinary_queue_that_an_operator_unbinds_is_bound_again_for_the_next_call(
    server: AmqpRpcServer, broker: Broker, make_client: MakeClient, durable: bool
) -> None:
    client = make_client(durable=durable)
    assert client.call.show_message("x", "y") == ["x", "y"]
    queue = f"rpc_{client.namespace}_request"
    with broker.channel() as channel:
        channel.queue_unbind(queue, queue, "")
    with pytest.raises(Unroutable, match="unbound; it is set up again") as caught:
        client.call.show_message("x", "y")
    assert caught.value.executed is False
    assert client.call.show_message("x", "y") == ["x", "y"]


HARMS = ["the queue is unbound", "its exchange is deleted", "its exchange has another type"]


def cut_off(client: AmqpRpcClient | AmqpRpcFanoutClient, broker: Broker, harm: str) -> None:
    """Have the exchange for answers not lead to a client's queue."""
    exchange = f"rpc_{client.namespace}_response"
    with broker.channel() as channel:
        if harm == "the queue is unbound":
            queue = f"rpc_{client.namespace}_{client.client_id}_response"
            channel.queue_unbind(queue, exchange, client.client_id)
            return
        channel.exchange_delete(exchange)
        if harm == "its exchange has another type":
            channel.exchange_declare(exchange, "topic")


@pytest.mark.parametrize("harm", HARMS)
def test_answers_go_straight_to_a_client_that_the_exchange_does_not_lead_to(
    make_server: MakeServer, broker: Broker, client: AmqpRpcClient, harm: str
) -> None:
    gate = Gate()
    server = make_server(gate.hold, concurrency=3)
    pending = [client.defer.hold(number) for number in range(3)]
    wait_until(lambda: len(gate.entered) == 3)
    cut_off(client, broker, harm)
    gate.open()
    # They are ready at once, and so they are one message.
    assert [result.get() for result in pending] == [0, 1, 2]
    assert client.call.hold("x") == "x"
    assert server.lost_responses == 0
    assert client.unexpected_responses == 0


@pytest.mark.parametrize("harm", HARMS)
def test_a_gather_has_the_answers_although_its_client_was_unbound(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, harm: str
) -> None:
    for _ in range(2):
        make_server(show_message, kind=AmqpRpcFanoutServer)
    everybody = make_client(AmqpRpcFanoutClient)
    assert len(everybody.gather(timeout=30.0).show_message("x").values()) == 2
    cut_off(everybody, broker, harm)
    assert len(everybody.gather(timeout=30.0).show_message("x").values()) == 2


@pytest.mark.parametrize("harm", HARMS[:2])
def test_a_client_binds_its_queue_again_when_an_answer_came_straight(
    server: AmqpRpcServer, client: AmqpRpcClient, broker: Broker, harm: str
) -> None:
    assert client.call.show_message("x", "y") == ["x", "y"]
    cut_off(client, broker, harm)
    assert client.call.show_message("x", "y") == ["x", "y"]

    def is_bound() -> bool:
        message = Properties(message_id="from-nobody")
        try:
            with broker.channel() as channel:
                exchange = f"rpc_{client.namespace}_response"
                publish_confirmed(
                    channel, exchange, client.client_id, message, b"{}", mandatory=True
                )
        except (Unroutable, ConnectionLost):
            return False
        return True

    wait_until(is_bound)


@pytest.mark.parametrize("harm", HARMS[:2])
def test_a_stream_begins_although_its_client_was_unbound(
    make_server: MakeServer, client: AmqpRpcClient, broker: Broker, harm: str
) -> None:
    def numbers() -> Iterator[int]:
        yield from range(100)

    make_server(numbers)
    assert list(client.stream.numbers()) == list(range(100))
    cut_off(client, broker, harm)
    assert list(client.stream(timeout=30.0).numbers()) == list(range(100))


@pytest.mark.parametrize("harm", HARMS)
def test_items_that_the_exchange_does_not_lead_to_their_client_are_sent_again_straight_to_it(
    make_server: MakeServer,
    client: AmqpRpcClient,
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
    harm: str,
) -> None:
    monkeypatch.setattr(streams, "CREDIT_INTERVAL", 0.05)
    # The client does not bind its queue again by itself.
    monkeypatch.setattr(rebinding, "INTERVAL", 1000.0)
    go_on = Event()

    def numbers() -> Iterator[int]:
        yield 0
        go_on.wait()
        yield from range(1, 100)

    make_server(numbers)
    stream = client.stream(timeout=80.0).numbers()
    assert next(stream) == 0
    cut_off(client, broker, harm)
    go_on.set()
    assert list(stream) == list(range(1, 100))


@pytest.mark.parametrize("harm", ["the queue is unbound", "its exchange is deleted"])
def test_a_stream_without_a_deadline_goes_on_after_its_client_was_unbound(
    make_server: MakeServer,
    make_client: MakeClient,
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
    harm: str,
) -> None:
    monkeypatch.setattr(rebinding, "INTERVAL", 0.2)
    monkeypatch.setattr(rebinding, "SHORTEST_INTERVAL", 0.2)
    go_on = Event()

    def numbers() -> Iterator[int]:
        yield 0
        go_on.wait()
        yield from range(1, 100)

    make_server(numbers)
    client = make_client()
    stream = client.stream.numbers()
    assert next(stream) == 0
    cut_off(client, broker, harm)
    go_on.set()
    assert list(stream) == list(range(1, 100))


def test_a_stream_whose_end_was_lost_ends_all_the_same(
    make_server: MakeServer,
    make_client: MakeClient,
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming, "END_ON_ITS_WAY", 0.5)
    monkeypatch.setattr(streaming, "HEARTBEATS", 0)
    go_on = Event()

    def numbers() -> Iterator[int]:
        yield 0
        go_on.wait()

    make_server(numbers)
    client = make_client()
    stream = client.stream.numbers()
    assert next(stream) == 0
    consumer = client._mailbox.consumer
    channel, subscription = consumer.channel, consumer._subscription
    assert channel is not None
    assert subscription is not None
    channel.cancel(subscription.tag)
    go_on.set()
    wait_until(lambda: broker.ready_messages(consumer.queue) == 1, "the end is in the queue")
    with broker.channel() as own:
        own.queue_purge(consumer.queue)
    client.session.consuming.restore_soon(consumer)
    with pytest.raises(StreamLost, match="its end was lost") as caught:
        next(stream)
    assert caught.value.received == 1


def test_a_stream_whose_end_went_to_a_lost_connection_has_it_when_the_broker_notices(
    make_server: MakeServer,
    make_client: MakeClient,
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming, "END_ON_ITS_WAY", 0.5)
    go_on = Event()

    def numbers() -> Iterator[int]:
        yield 0
        go_on.wait()

    server = make_server(numbers)
    client = make_client()
    stream = client.stream.numbers()
    assert next(stream) == 0
    taken: list[object] = []
    with broker.channel() as lost:
        queue, first = client._mailbox.consumer.queue, {"x-priority": 1000}
        lost.consume(queue, taken.append, "lost", arguments=first)
        go_on.set()
        wait_until(lambda: taken)
        # The client has said for long that it still waits.
        ended = server._worker.outlets._ended
        wait_until(lambda: any(last - since > 2.0 for since, last in ended.values()))
    assert list(stream) == []


@pytest.mark.parametrize("harm", ["the exchanges are deleted", "the queues are unbound"])
def test_a_server_binds_again_what_somebody_has_unbound(
    broker: Broker,
    make_server: MakeServer,
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
    harm: str,
) -> None:
    monkeypatch.setattr(rebinding, "INTERVAL", 0.2)
    ended = Event()

    def hold() -> None:
        try:
            Event().wait()
        finally:
            ended.set()

    server = make_server(abs, kind=AmqpRpcFanoutServer, serve=False)
    server.add_function(hold, cancellable=True)
    server.serve()
    worker = server._worker
    mine = [worker.intake.consumer, worker.control.consumer, worker.management.consumer]
    wait_until(lambda: all(consumer.ready for consumer in mine))
    with broker.channel() as channel:
        for consumer in mine:
            assert isinstance(consumer._queue, CheapQueue)
            binding = consumer._queue.binding
            # All servers share the exchange for commands, those of other tests too.
            if harm == "the queues are unbound" or consumer is worker.management.consumer:
                for key in consumer._queue.keys:
                    channel.queue_unbind(binding.queue, binding.exchange, key)
            else:
                channel.exchange_delete(binding.exchange)
    everybody = make_client(AmqpRpcFanoutClient)

    def is_cancelled() -> bool:
        result = everybody.defer.hold()
        wait_until(lambda: server.running > 0)
        result.cancel()
        return ended.wait(0.2)

    with ManagementClient(session=everybody.session) as management:
        asked = management.ask
        wait_until(lambda: everybody.gather(timeout=10.0).abs(-1).values() == [1])
        wait_until(lambda: len(list(asked(server.namespace, "ping", timeout=10.0))) == 1)
    wait_until(is_cancelled)


def test_a_server_hears_of_new_queues_again_whose_announcements_somebody_has_cut_off(
    broker: Broker,
    make_server: MakeServer,
    client: AmqpRpcClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rebinding, "INTERVAL", 0.2)
    # It looks for the queue once, and has to be told of it afterwards.
    for pause in ("FIRST_PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(attaching, pause, 1000.0)
    server = make_server(abs)
    server.receive_from_queue("Alice", block=False)
    queues = server._worker.queues
    wait_until(lambda: queues.announcements.listening and queues._retries)
    with broker.channel() as channel:
        channel.exchange_delete(f"rpc_{client.namespace}_created")

    def is_told() -> bool:
        client.remove_request_queue("Alice")
        client.create_new_request_queue("Alice", x_expires=EXPIRES)
        with suppress(NoResult):
            return bool(client.call(timeout=0.5, routing_key="Alice").abs(-1) == 1)
        return False

    wait_until(is_told)


@pytest.mark.parametrize("harm", ["the exchange is deleted", "the queue is unbound"])
@pytest.mark.parametrize("when", ["before it begins", "while it runs"])
def test_a_stream_goes_on_although_its_server_was_not_told_how_far_it_may_go(
    make_server: MakeServer,
    make_client: MakeClient,
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
    harm: str,
    when: str,
) -> None:
    # Before the server would bind its queue again by itself.
    monkeypatch.setattr(streams, "DOUBT", 0.2)
    monkeypatch.setattr(control, "REFUSED_FOR", 0.2)

    def numbers() -> Iterator[int]:
        yield from range(1000)

    server = make_server(numbers)
    wait_until(lambda: server._worker.control.consumer.ready)
    client = make_client()
    stream = client.stream.numbers() if when == "while it runs" else iter(())
    assert next(stream, 0) == 0
    queue = server._worker.control.queue
    with broker.channel() as channel:
        if harm == "the exchange is deleted":
            channel.exchange_delete(queue.binding.exchange)
        else:
            for key in queue.keys:
                channel.queue_unbind(queue.name, queue.binding.exchange, key)
    if when == "before it begins":
        stream = client.stream.numbers()
        assert next(stream) == 0
    assert list(stream) == list(range(1, 1000))


def test_an_ordinary_queue_that_is_deleted_without_servers_keeps_the_next_request(
    broker: Broker, client: AmqpRpcClient, make_server: MakeServer
) -> None:
    client.cast(wait_publish=True).show_message("x", "y")
    with broker.channel() as channel:
        channel.queue_delete(f"rpc_{client.namespace}_request")
    with pytest.raises(Unroutable):
        client.cast(wait_publish=True).show_message("x", "y")
    waiting = client.defer.show_message("x", "y")
    make_server(show_message)
    assert waiting.get() == ["x", "y"]


def test_several_queues_with_one_key_all_get_the_request(
    server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    for label in ("screen", "printer"):
        client.create_new_request_queue(label, routing_key="all", x_expires=EXPIRES)
    client.cast(routing_key="all").show_message("x")
    assert server.receive_from_queue("screen", max_calls=1) == 1
    assert server.receive_from_queue("printer", max_calls=1) == 1


# -- a key that nobody has ------------------------------------------------------------------------


@pytest.mark.parametrize("serving", [True, False])
def test_a_call_with_a_key_of_no_queue_fails_at_once_and_names_the_key(
    make_server: MakeServer, client: AmqpRpcClient, serving: bool
) -> None:
    if serving:
        make_server(show_message)
    with pytest.raises(Unroutable, match=r"'nobody'.*create_new_request_queue") as caught:
        client.call(routing_key="nobody", timeout=20).show_message("x")
    assert caught.value.executed is False
    assert client.pending == 0


def test_a_deferred_call_with_a_key_of_no_queue_fails_when_its_result_is_asked_for(
    client: AmqpRpcClient,
) -> None:
    result = client.defer(routing_key="nobody", timeout=20).show_message("x")
    with pytest.raises(Unroutable, match="'nobody'"):
        result.get()
    with pytest.raises(Unroutable, match="'nobody'"):
        client.defer(routing_key="nobody", wait_publish=True).show_message("x")


def test_a_cast_with_a_key_of_no_queue_fails_if_it_waits_and_is_logged_if_not(
    client: AmqpRpcClient, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Unroutable, match="'nobody'"):
        client.cast(routing_key="nobody", wait_publish=True).show_message("x")

    def logged() -> bool:
        # Not each one: somebody else's are logged at most once a second, too.
        client.cast(routing_key="no one").show_message("x")
        return "'no one'" in caplog.text

    with caplog.at_level(logging.WARNING, "amphora"):
        wait_until(logged)


def test_each_of_many_requests_gets_its_own_verdict(
    make_server: MakeServer, client: AmqpRpcClient
) -> None:
    make_server(show_message)
    results = [
        client.defer(routing_key=None if n % 3 else f"nobody-{n}").show_message(str(n))
        for n in range(300)
    ]
    for n, result in enumerate(results):
        if n % 3:
            assert result.get() == [str(n), ""]
        else:
            with pytest.raises(Unroutable, match=f"'nobody-{n}'"):
                result.get()


def test_a_key_from_outside_is_printed_safely(client: AmqpRpcClient) -> None:
    with pytest.raises(Unroutable) as caught:
        client.call(routing_key="evil\n2026 ERROR\x1b[31m" + "x" * 500).show_message("x")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_hostile_key_reaches_no_queue_of_anybody_else(
    server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    for key in HOSTILE:
        with pytest.raises(Unroutable):
            client.call(routing_key=key).show_message("x")
    # Neither the client nor the server was harmed.
    assert client.call.show_message("x") == ["x", ""]
    assert server.processed == 1


def test_what_cannot_be_a_key_is_refused_before_anything_is_sent(client: AmqpRpcClient) -> None:
    wrong: list[Any] = ["", 7, b"Alice", "\ud800", ("Alice",)]
    for key in wrong:
        for way in (client.call, client.defer, client.cast):
            with pytest.raises(ValueError, match="routing key"):
                way(routing_key=key).show_message("x")
        with pytest.raises(ValueError, match="routing key"):
            client.create_new_request_queue("Alice", routing_key=key)
    assert client.pending == 0
    assert client.state == "idle"


def test_what_cannot_be_a_label_is_refused(server: AmqpRpcServer, client: AmqpRpcClient) -> None:
    wrong: list[Any] = ["", 7, None, b"Alice", "\ud800"]
    for label in wrong:
        for refused in (
            client.create_new_request_queue,
            client.remove_request_queue,
            server.receive_from_queue,
        ):
            with pytest.raises(ValueError, match="label"):
                refused(label)


def test_what_cannot_be_an_expiry_is_refused(client: AmqpRpcClient) -> None:
    wrong: list[Any] = [0, -1, float("nan"), float("inf"), "60", True, 1e9]
    for x_expires in wrong:
        with pytest.raises(ValueError, match=r"^x_expires must be (more than 0|a number)"):
            client.create_new_request_queue("Alice", x_expires=x_expires)


@pytest.mark.parametrize("days", [30, 60, 3650])
def test_a_queue_may_outlive_weeks_without_a_receiver(
    client: AmqpRpcClient, broker: Broker, days: int
) -> None:
    client.create_new_request_queue("Alice", x_expires=days * 86400)
    client.cast(routing_key="Alice", wait_publish=True).show_message("x", "y")
    assert broker.ready_messages(f"rpc_{client.namespace}_queue_Alice") == 1
    client.remove_request_queue("Alice")


def test_a_very_short_expiry_is_taken(client: AmqpRpcClient, broker: Broker) -> None:
    try:
        client.create_new_request_queue("Alice", x_expires=0.0001)
    except ChannelClosed as error:
        # It was taken, and was over before the queue was bound.
        assert error.code == 404  # noqa: PT017 (no error is right as well)


# -- a key computed -------------------------------------------------------------------------------


def test_a_tune_function_computes_the_key_from_the_arguments(
    client: AmqpRpcClient, receive: Receive
) -> None:
    seen: list[Any] = []

    @client.tune_function("show_message")
    def to_user(args: Any, kwargs: Any) -> Any:
        seen.append((args, kwargs))
        return args[0] if args else kwargs["user"]

    assert to_user(("Alice",), {}) == "Alice"
    alice, bob = receive("Alice"), receive("Bob")
    assert client.call.show_message("Alice", "one") == ["Alice", "one"]
    assert client.defer.show_message(user="Bob", message="two").get() == ["Bob", "two"]
    assert (alice.get(), bob.get()) == (1, 1)
    assert seen[1:] == [
        (("Alice", "one"), {}),
        ((), {"user": "Bob", "message": "two"}),
    ]


def test_a_tune_function_can_return_options_as_it_could_in_amphora_0_1(
    client: AmqpRpcClient, receive: Receive
) -> None:
    @client.tune_function("show_message")
    def to_user(args: Any, kwargs: Any) -> Any:
        return {"routing_key": args[0]}

    alice = receive("Alice")
    assert client.call.show_message("Alice") == ["Alice", ""]
    assert alice.get() == 1


def test_a_tune_function_can_choose_the_ordinary_queue(
    server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    answers: list[Any] = [None, {}, {"routing_key": None}]
    client.tune_function("show_message")(lambda args, kwargs: answers.pop())
    for _ in range(3):
        assert client.call.show_message("x") == ["x", ""]


def test_a_tune_function_is_asked_only_for_its_function(
    server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    server.add_function(show_message, name="chat.show_message")
    client.tune_function("chat.show_message")(lambda args, kwargs: "nobody")
    assert client.call.show_message("x") == ["x", ""]
    with pytest.raises(Unroutable, match="'nobody'"):
        client.call.chat.show_message("x")


def test_a_key_given_in_the_call_wins_over_the_tune_function(
    client: AmqpRpcClient, receive: Receive
) -> None:
    client.tune_function("show_message")(lambda args, kwargs: "nobody")
    alice = receive("Alice")
    assert client.call(routing_key="Alice").show_message("x") == ["x", ""]
    assert alice.get() == 1


def test_a_tune_function_can_set_the_time_limit(
    make_server: MakeServer, client: AmqpRpcClient
) -> None:
    client.tune_function("show_message")(lambda args, kwargs: {"timeout": 0.05})
    for way in (client.call.show_message, lambda text: client.defer.show_message(text).get()):
        with pytest.raises(NoResult, match=r"within 0\.05 s"):
            way("x")


def test_a_tune_function_can_have_casts_wait_for_the_broker(client: AmqpRpcClient) -> None:
    client.tune_function("show_message")(
        lambda args, kwargs: {"routing_key": "nobody", "wait_publish": True}
    )
    with pytest.raises(Unroutable):
        client.cast.show_message("x")
    with pytest.raises(Unroutable):
        client.defer.show_message("x")


def test_a_tune_function_chooses_the_queue_of_a_stream(
    server: AmqpRpcServer, client: AmqpRpcClient, receive: Receive
) -> None:
    @server.add_function
    def letters(user: str) -> Iterator[str]:
        yield from user

    client.tune_function("letters")(lambda args, kwargs: args[0])
    bob = receive("Bob")
    assert list(client.stream.letters("Bob")) == ["B", "o", "b"]
    assert bob.get() == 1
    with pytest.raises(Unroutable, match="'nobody'"):
        list(client.stream.letters("nobody"))


def test_an_exception_of_a_tune_function_is_the_callers(client: AmqpRpcClient) -> None:
    @client.tune_function("show_message")
    def to_user(args: Any, kwargs: Any) -> Any:
        return args[0]

    with pytest.raises(IndexError):
        client.call.show_message()
    assert client.pending == 0


def test_a_tune_function_that_returns_something_else_is_told(client: AmqpRpcClient) -> None:
    wrong: list[Any] = [7, ["Alice"], b"Alice", object()]
    client.tune_function("show_message")(lambda args, kwargs: args[0])
    for answer in wrong:
        with pytest.raises(TypeError, match="tune function of show_message"):
            client.call.show_message(answer)


def test_a_tune_function_that_returns_unknown_options_is_told(client: AmqpRpcClient) -> None:
    client.tune_function("show_message")(lambda args, kwargs: {args[0]: "x"})
    for option in ("routing", "function_name"):
        with pytest.raises(TypeError, match=f"unknown options.*{option}"):
            client.call.show_message(option)


def test_a_tune_function_cannot_send_what_is_no_key_to_the_ordinary_queue(
    client: AmqpRpcClient,
) -> None:
    wrong: list[Any] = ["", 7, "\ud800"]
    client.tune_function("show_message")(lambda args, kwargs: {"routing_key": wrong.pop()})
    for _ in range(3):
        with pytest.raises(ValueError, match="routing key"):
            client.call.show_message("x")
