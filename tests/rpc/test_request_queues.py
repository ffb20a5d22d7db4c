"""Request queues for a key, and those who serve them for a while."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import gevent
import pytest
from gevent.event import Event

from amphora import (
    AmqpRpcClient,
    AmqpRpcServer,
    AuthenticationError,
    ChannelClosed,
    ConnectionLost,
    IgnoreRequest,
    Receiving,
    RemoteException,
    Unroutable,
)
from amphora.rpc.keyed import attaching
from tests.support.brokers import Broker, ManagedBroker
from tests.support.rpc import Gate, MakeClient, MakeServer, MakeSession
from tests.support.waiting import wait_until

# The queues of these tests go away by themselves.
EXPIRES = 60.0
# Longer than anything takes here, and shorter than a test may take.
LONG = 60.0


def queue_of(namespace: str, label: str = "Alice") -> str:
    return f"rpc_{namespace}_queue_{label}"


def echo(value: Any = None) -> Any:
    return value


@pytest.fixture
def server(make_server: MakeServer) -> AmqpRpcServer:
    """A server that only receives from queues, with a function that returns what it is given."""
    return make_server(echo, serve=False)


@pytest.fixture
def client(make_client: MakeClient) -> AmqpRpcClient:
    return make_client()


def create(client: AmqpRpcClient, label: str = "Alice") -> None:
    client.create_new_request_queue(label, x_expires=EXPIRES)


def send(client: AmqpRpcClient, *values: Any, label: str = "Alice", function: str = "echo") -> Any:
    """Put calls into the queue of a label, in this order, and return their results."""
    return [
        client.defer(routing_key=label, wait_publish=True, function_name=function)(value)
        for value in values
    ]


def wait_receiving(broker: Broker, namespace: str, label: str = "Alice", count: int = 1) -> None:
    """Wait until so many receivers consume the queue of a label."""
    queue = queue_of(namespace, label)
    wait_until(lambda: broker.consumers(queue) == count, f"{count} consumers of {queue}")


def left_in(broker: Broker, queue: str) -> list[bool]:
    """Take out what is left in a queue; return of each message if it was ever delivered before."""
    wait_until(lambda: broker.consumers(queue) == 0)
    left = []
    with broker.channel() as channel:
        while (message := channel.get(queue, no_ack=True)) is not None:
            method: Any = message.method
            left.append(method.redelivered)
    return left


# -- how many, how long ---------------------------------------------------------------------------


def test_a_receiver_handles_what_waits_for_its_key(
    server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    create(client)
    first, second = send(client, 1, 2)
    assert server.receive_from_queue("Alice", max_calls=2) == 2
    assert (first.get(), second.get()) == (1, 2)


def test_a_receiver_handles_requests_in_the_order_of_their_coming(
    make_server: MakeServer, client: AmqpRpcClient
) -> None:
    seen: list[int] = []
    server = make_server(serve=False)
    server.add_function(seen.append, name="echo")
    create(client)
    send(client, *range(30))
    assert server.receive_from_queue("Alice", max_calls=30) == 30
    assert seen == list(range(30))


@pytest.mark.parametrize("max_calls", [1, 2, 7])
def test_a_receiver_never_takes_more_than_max_calls_from_the_queue(
    server: AmqpRpcServer,
    client: AmqpRpcClient,
    broker: Broker,
    namespace: str,
    max_calls: int,
) -> None:
    create(client)
    send(client, *range(10))
    assert server.receive_from_queue("Alice", max_calls=max_calls) == max_calls
    # No other was even sent to this process.
    assert left_in(broker, queue_of(namespace)) == [False] * (10 - max_calls)


def test_receivers_with_and_without_a_limit_keep_to_it_on_the_channel_that_they_share(
    server: AmqpRpcServer, client: AmqpRpcClient, broker: Broker, namespace: str
) -> None:
    for turn in range(5):
        for label in ("Alice", "Bob"):
            create(client, label)
        send(client, *range(5))
        send(client, *range(3), label="Bob")
        unlimited = gevent.spawn(server.receive_from_queue, "Bob", timeout=0.05)
        assert server.receive_from_queue("Alice", max_calls=2) == 2, turn
        unlimited.get()
        assert left_in(broker, queue_of(namespace)) == [False] * 3, turn
        broker.delete_queue(queue_of(namespace, "Bob"))


def test_what_an_unlimited_receiver_got_ahead_goes_back_when_it_is_stopped(
    make_server: MakeServer, client: AmqpRpcClient, broker: Broker, namespace: str
) -> None:
    gate = Gate()
    server = make_server(gate.hold, serve=False)
    create(client)
    results = send(client, *range(8), function="hold")
    receiving = server.receive_from_queue("Alice", block=False)
    wait_until(lambda: gate.entered == [0])
    stopping = gevent.spawn(receiving.stop)
    gate.open()
    assert stopping.get() == 1
    wait_until(lambda: broker.ready_messages(queue_of(namespace)) == 7)
    assert server.receive_from_queue("Alice", max_calls=7) == 7
    assert [result.get() for result in results] == list(range(8))
    assert gate.entered == list(range(8))


def test_a_receiver_whose_time_ran_out_with_fewer_calls_raises_a_timeout(
    server: AmqpRpcServer, client: AmqpRpcClient, broker: Broker, namespace: str
) -> None:
    create(client)
    (result,) = send(client, "served")
    while not result.ready():
        with pytest.raises(gevent.Timeout) as caught:
            server.receive_from_queue("Alice", max_calls=2, timeout=1)
        assert caught.value.seconds == 1
    assert result.get() == "served"
    # And it is gone: what comes later waits for the next.
    assert broker.consumers(queue_of(namespace)) == 0
    assert send(client, "later")[0].ready() is False
    assert server.receive_from_queue("Alice", max_calls=1) == 1


def test_a_receiver_without_a_limit_of_calls_returns_how_many_there_were_in_its_time(
    server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    create(client)
    assert server.receive_from_queue("Alice", timeout=0.05) == 0
    results = send(client, 1, 2, 3)
    handled = 0
    while not all(result.ready() for result in results):
        handled += server.receive_from_queue("Alice", timeout=1)
    assert handled == 3


def test_a_queue_that_is_never_empty_does_not_keep_a_receiver_beyond_its_time(
    make_server: MakeServer, client: AmqpRpcClient
) -> None:
    server = make_server(serve=False)

    @server.add_function
    def again(value: int) -> None:
        send(client, value + 1, function="again")

    create(client)
    send(client, *range(10), function="again")
    while not server.receive_from_queue("Alice", timeout=1):
        pass


def test_max_calls_must_be_at_least_one(server: AmqpRpcServer) -> None:
    wrong: list[Any] = [0, -1, 1.5, "1", True]
    for max_calls in wrong:
        with pytest.raises(ValueError, match="max_calls must be a whole number of at least 1"):
            server.receive_from_queue("Alice", max_calls=max_calls)


def test_a_receivers_timeout_must_be_a_number_of_seconds(server: AmqpRpcServer) -> None:
    wrong: list[Any] = [-1, float("nan"), float("inf"), "1", True]
    for timeout in wrong:
        with pytest.raises(ValueError, match="timeout"):
            server.receive_from_queue("Alice", timeout=timeout)


def test_an_exception_of_the_handler_goes_to_the_caller_and_the_receiver_goes_on(
    make_server: MakeServer, client: AmqpRpcClient
) -> None:
    server = make_server(serve=False)
    server.add_function(int, name="echo")
    create(client)
    wrong, right = send(client, "x", "3")
    assert server.receive_from_queue("Alice", max_calls=2) == 2
    assert right.get() == 3
    with pytest.raises(RemoteException, match="ValueError"):
        wrong.get()


def test_a_cast_is_received_like_a_call(
    make_server: MakeServer, client: AmqpRpcClient, broker: Broker, namespace: str
) -> None:
    seen: list[str] = []
    server = make_server(serve=False)
    server.add_function(seen.append, name="show")
    create(client)
    client.cast(routing_key="Alice").show("hello")
    assert server.receive_from_queue("Alice", max_calls=1) == 1
    assert seen == ["hello"]
    assert left_in(broker, queue_of(namespace)) == []


def test_two_receivers_of_one_key_share_its_requests(
    make_server: MakeServer, client: AmqpRpcClient
) -> None:
    gate = Gate()
    server = make_server(gate.hold, serve=False)
    create(client)
    receivers = [gevent.spawn(server.receive_from_queue, "Alice", max_calls=1) for _ in range(2)]
    results = send(client, "a", "b", function="hold")
    wait_until(lambda: sorted(gate.entered) == ["a", "b"])
    gate.open()
    assert [result.get() for result in results] == ["a", "b"]
    assert [receiver.get() for receiver in receivers] == [1, 1]


def test_each_key_has_its_own_requests(server: AmqpRpcServer, client: AmqpRpcClient) -> None:
    labels = ["Alice", "Bob", "Carol"]
    for label in labels:
        create(client, label)
    results = {label: send(client, label, label=label)[0] for label in labels}
    for label in labels:
        assert not results[label].ready()
        server.receive_from_queue(label, max_calls=1)
        assert results[label].get() == label


def test_a_receiver_is_gone_when_it_returns(
    server: AmqpRpcServer, client: AmqpRpcClient, broker: Broker, namespace: str
) -> None:
    create(client)
    for turn in range(10):
        send(client, turn)
        assert server.receive_from_queue("Alice", max_calls=1) == 1
        assert broker.consumers(queue_of(namespace)) == 0


def test_a_server_can_serve_and_receive_at_once(
    make_server: MakeServer, client: AmqpRpcClient
) -> None:
    server = make_server(echo)
    create(client)
    receiver = gevent.spawn(server.receive_from_queue, "Alice", max_calls=1)
    assert client.call.echo("for anybody") == "for anybody"
    assert client.call(routing_key="Alice").echo("for Alice") == "for Alice"
    assert receiver.get() == 1


def test_a_message_that_cannot_be_read_is_dropped_and_the_receiver_goes_on(
    server: AmqpRpcServer, client: AmqpRpcClient, broker: Broker, namespace: str
) -> None:
    create(client)
    with broker.channel() as channel:
        channel.confirm_select()
        # The flags say that there is a content type, which is not UTF-8.
        poison = b"\x80\x00" + b"\x02\xff\xfe"
        channel.publish_encoded("", queue_of(namespace), poison, b"", False, None)
        wait_until(lambda: broker.ready_messages(queue_of(namespace)) == 1)
    (result,) = send(client, "behind it")
    assert server.receive_from_queue("Alice", max_calls=1) == 1
    assert result.get() == "behind it"
    assert left_in(broker, queue_of(namespace)) == []


# -- waiting for a queue --------------------------------------------------------------------------


def test_a_receiver_waits_for_a_queue_that_does_not_exist_yet(
    server: AmqpRpcServer, client: AmqpRpcClient, namespace: str
) -> None:
    receiver = gevent.spawn(server.receive_from_queue, "Alice", max_calls=1, timeout=LONG)
    wait_until(lambda: queue_of(namespace) in server._worker.queues._missing)
    create(client)
    assert client.call(routing_key="Alice").echo("found") == "found"
    assert receiver.get() == 1


def test_a_receiver_finds_a_queue_that_somebody_else_has_made(
    server: AmqpRpcServer, client: AmqpRpcClient, broker: Broker, namespace: str
) -> None:
    client.cast(wait_publish=True).echo()  # declares the exchange
    receiver = gevent.spawn(server.receive_from_queue, "Alice", max_calls=1, timeout=LONG)
    wait_until(lambda: queue_of(namespace) in server._worker.queues._missing)
    with broker.channel() as channel:
        channel.queue_declare(queue_of(namespace), arguments={"x-expires": int(EXPIRES * 1000)})
        channel.queue_bind(queue_of(namespace), f"rpc_{namespace}_request", "Alice")
    assert client.call(routing_key="Alice").echo("found") == "found"
    assert receiver.get() == 1


def test_a_receivers_time_passes_while_there_is_no_queue(
    server: AmqpRpcServer, broker: Broker, namespace: str
) -> None:
    with pytest.raises(gevent.Timeout):
        server.receive_from_queue("Alice", max_calls=1, timeout=0.05)
    assert server.receive_from_queue("Alice", timeout=0.05) == 0
    assert not broker.queue_exists(queue_of(namespace))


@pytest.mark.time_limit(180)
def test_receivers_that_were_refused_are_attached_together_when_one_is_not(
    server: AmqpRpcServer,
    make_client: MakeClient,
    broker: Broker,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(attaching, "RETRIES_PER_SECOND", 0.5)
    client = make_client(timeout=150.0)
    labels = [f"user{number}" for number in range(100)]
    for label in labels:
        create(client, label)
    queues = server._worker.queues
    with broker.channel() as stranger:
        for label in labels:
            queue = queue_of(namespace, label)
            stranger.consume(queue, lambda message: None, label, exclusive=True)
        receiving = [server.receive_from_queue(label, block=False) for label in labels]
        wait_until(lambda: all(each._receiver.refusal for each in receiving))
        assert queues.attached == 0
        waiting = [send(client, label, label=label)[0] for label in labels]
    assert [result.get() for result in waiting] == labels
    wait_until(lambda: queues.attached == len(labels))
    # Those that were refused are tried on channels of their own, and have none for good.
    wait_until(lambda: len(queues._lanes) < len(labels) / 4, "unused channels are closed")
    assert [send(client, label, label=label)[0].get() for label in labels] == labels
    told = [each for each in caplog.records if "cannot be attached" in each.getMessage()]
    assert 1 <= len(told) < len(labels)


def test_receivers_of_queues_that_are_missing_hold_up_nobody(
    server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    missing = [gevent.spawn(server.receive_from_queue, f"nobody-{n}") for n in range(200)]
    create(client)
    receiver = gevent.spawn(server.receive_from_queue, "Alice", max_calls=1)
    assert client.call(routing_key="Alice", timeout=40).echo(1) == 1
    assert receiver.get() == 1
    gevent.killall(missing)


def test_a_queue_that_is_deleted_under_a_receiver_is_waited_for_again(
    server: AmqpRpcServer, client: AmqpRpcClient, broker: Broker, namespace: str
) -> None:
    create(client)
    receiver = gevent.spawn(server.receive_from_queue, "Alice", max_calls=3, timeout=LONG)
    for turn in range(3):
        assert client.call(routing_key="Alice").echo(turn) == turn
        if turn < 2:
            client.remove_request_queue("Alice")
            with pytest.raises(Unroutable):
                client.call(routing_key="Alice").echo("nobody there")
            create(client)
    assert receiver.get() == 3


def test_a_queue_expires_without_a_receiver_and_not_with_one(
    server: AmqpRpcServer, client: AmqpRpcClient, broker: Broker, namespace: str
) -> None:
    receiving = server.receive_from_queue("kept", block=False)

    def is_kept() -> bool:
        # Again, if its time was over before it was received from.
        client.create_new_request_queue("kept", x_expires=1)
        return broker.consumers(queue_of(namespace, "kept")) == 1

    wait_until(is_kept)
    client.create_new_request_queue("Alice", x_expires=0.5)
    # Not asked of the broker: that would renew it.
    wait_until(lambda: is_unroutable(client, "Alice"))
    assert client.call(routing_key="kept").echo(1) == 1
    # And it can be made again.
    create(client)
    send(client, 1)
    assert server.receive_from_queue("Alice", max_calls=1) == 1
    receiving.stop()


def is_unroutable(client: AmqpRpcClient, label: str) -> bool:
    try:
        client.cast(routing_key=label, wait_publish=True).echo()
    except Unroutable:
        return True
    return False


# -- in the background ----------------------------------------------------------------------------


def test_a_receiver_in_the_background_has_a_handle(
    server: AmqpRpcServer, client: AmqpRpcClient, broker: Broker, namespace: str
) -> None:
    create(client)
    receiving = server.receive_from_queue("Alice", block=False)
    assert repr(receiving) == f"<Receiving {queue_of(namespace)} [receiving]>"
    for turn in range(3):
        assert client.call(routing_key="Alice").echo(turn) == turn
    with pytest.raises(gevent.Timeout):
        receiving.wait(timeout=0.01)
    assert receiving.stop() == 3
    assert broker.consumers(queue_of(namespace)) == 0
    assert receiving.wait() == 3
    assert receiving.stop() == 3
    assert repr(receiving) == f"<Receiving {queue_of(namespace)} [ended]>"


def test_a_receiver_in_the_background_ends_at_its_limit(
    server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    create(client)
    receiving = server.receive_from_queue("Alice", max_calls=2, block=False)
    send(client, 1, 2, 3)
    assert receiving.wait() == 2


def test_a_receiver_in_the_background_tells_whoever_waits_that_its_time_ran_out(
    server: AmqpRpcServer, capfd: pytest.CaptureFixture[str]
) -> None:
    receiving = server.receive_from_queue("Alice", max_calls=1, timeout=0.02, block=False)
    for _ in range(2):
        with pytest.raises(gevent.Timeout) as caught:
            receiving.wait(timeout=LONG)
        assert caught.value.seconds == 0.02
    assert receiving.stop() == 0
    # It is no error, and nothing of it is printed.
    assert capfd.readouterr() == ("", "")


def test_a_receiver_that_has_all_its_requests_takes_no_other_after_a_pause(
    make_server: MakeServer, client: AmqpRpcClient, broker: Broker, namespace: str
) -> None:
    gate = Gate()
    server = make_server(gate.hold, echo, serve=False)
    create(client, "Alice")
    create(client, "Bob")
    receiver = server.receive_from_queue("Alice", max_calls=1, block=False)
    [held] = send(client, "held", function="hold")
    wait_until(lambda: gate.entered)
    send(client, "next")
    server.pause()
    server.resume()
    # It is attached after the one that was there before.
    other = server.receive_from_queue("Bob", block=False)
    assert client.call(routing_key="Bob").echo(1) == 1
    gate.open()
    assert held.get(timeout=LONG) == "held"
    assert receiver.wait(timeout=LONG) == 1
    assert other.stop() == 1
    # Of a quorum queue the next request would be dropped after twenty deliveries.
    assert left_in(broker, queue_of(namespace)) == [False]


@pytest.mark.parametrize("kind", [SystemExit, gevent.Timeout, gevent.GreenletExit])
def test_whatever_a_handler_raises_is_an_answer_of_a_receiver_in_the_background(
    make_server: MakeServer, client: AmqpRpcClient, kind: type[BaseException]
) -> None:
    def fail() -> None:
        raise kind(1)

    server = make_server(echo, fail, serve=False)
    create(client)
    receiving = server.receive_from_queue("Alice", block=False)
    with pytest.raises(RemoteException) as caught:
        client.call(routing_key="Alice").fail()
    assert caught.value.error_type == kind.__name__
    assert client.call(routing_key="Alice").echo(2) == 2
    assert receiving.stop() == 2


def test_a_stopped_receiver_lets_its_handler_finish(
    make_server: MakeServer, client: AmqpRpcClient
) -> None:
    gate = Gate()
    server = make_server(gate.hold, serve=False)
    create(client)
    receiving = server.receive_from_queue("Alice", block=False)
    (result,) = send(client, "held", function="hold")
    wait_until(lambda: gate.entered)
    stopping = gevent.spawn(receiving.stop)
    gevent.sleep(0)
    assert not stopping.ready()
    gate.open()
    assert stopping.get() == 1
    assert result.get() == "held"


def test_a_handler_can_stop_its_own_receiver(
    make_server: MakeServer, client: AmqpRpcClient
) -> None:
    server = make_server(serve=False)
    receiving: Receiving
    server.add_function(lambda: receiving.stop(), name="stop")
    create(client)
    receiving = server.receive_from_queue("Alice", block=False)
    assert client.call(routing_key="Alice").stop() == 0
    assert receiving.wait() == 1


# -- killed ---------------------------------------------------------------------------------------


def test_a_receiver_that_is_killed_while_it_waits_leaves_the_queue_to_the_next(
    server: AmqpRpcServer, client: AmqpRpcClient, broker: Broker, namespace: str
) -> None:
    create(client)
    waiting = gevent.spawn(server.receive_from_queue, "Alice")
    wait_receiving(broker, namespace)
    waiting.kill()
    (result,) = send(client, "for the next")
    assert server.receive_from_queue("Alice", max_calls=1) == 1
    assert result.get() == "for the next"


def test_a_request_whose_receiver_is_killed_in_the_handler_goes_back(
    make_server: MakeServer, client: AmqpRpcClient
) -> None:
    gate = Gate()
    server = make_server(gate.hold, serve=False)
    create(client)
    (result,) = send(client, "x", function="hold")
    receiver = gevent.spawn(server.receive_from_queue, "Alice")
    wait_until(lambda: gate.entered == ["x"])
    receiver.kill()
    assert gate.passed == []
    assert not result.ready()
    gate.open()
    assert server.receive_from_queue("Alice", max_calls=1) == 1
    assert result.get() == "x"


def test_a_request_is_not_given_up_however_often_its_receiver_is_killed(
    make_server: MakeServer, client: AmqpRpcClient
) -> None:
    gate = Gate()
    server = make_server(gate.hold, serve=False)
    create(client)
    (result,) = send(client, "x", function="hold")
    for turn in range(1, 8):
        receiver = gevent.spawn(server.receive_from_queue, "Alice")
        wait_until(lambda turn=turn: len(gate.entered) == turn)
        receiver.kill()
    gate.open()
    assert server.receive_from_queue("Alice", max_calls=1) == 1
    assert result.get() == "x"


@pytest.mark.parametrize("times", [1, 2])
def test_what_a_killed_receiver_had_goes_to_another_in_the_old_order(
    make_server: MakeServer, client: AmqpRpcClient, broker: Broker, namespace: str, times: int
) -> None:
    gate = Gate()
    seen: list[int] = []
    killed, other = make_server(gate.hold, serve=False), make_server(serve=False)
    other.add_function(seen.append, name="hold")
    create(client)
    send(client, *range(5), function="hold")
    for turn in range(1, times + 1):
        # It has one in hand, and was sent the others ahead.
        receiver = gevent.spawn(killed.receive_from_queue, "Alice")
        wait_until(lambda turn=turn: len(gate.entered) == turn)
        wait_until(lambda: broker.ready_messages(queue_of(namespace)) == 0)
        if turn < times:
            receiver.kill()
            wait_until(lambda: broker.ready_messages(queue_of(namespace)) == 5)
    waiting = other.receive_from_queue("Alice", block=False)
    wait_receiving(broker, namespace, count=2)
    receiver.kill()
    wait_until(lambda: len(seen) == 5)
    waiting.stop()
    assert seen == [0, 1, 2, 3, 4]


def test_what_a_killed_receiver_gives_back_stays_in_front_of_its_successors(
    make_server: MakeServer, client: AmqpRpcClient
) -> None:
    gate = Gate()
    server = make_server(gate.hold, serve=False)
    create(client)
    send(client, 1, 2, 3, function="hold")
    for turn in range(1, 4):
        receiver = gevent.spawn(server.receive_from_queue, "Alice", max_calls=1)
        wait_until(lambda turn=turn: len(gate.entered) == turn)
        receiver.kill()
    gate.open()
    assert server.receive_from_queue("Alice", max_calls=3) == 3
    assert gate.entered == [1, 1, 1, 1, 2, 3]


def test_a_timeout_of_the_program_goes_through_and_the_request_goes_back(
    make_server: MakeServer, client: AmqpRpcClient
) -> None:
    gate = Gate()
    server = make_server(gate.hold, serve=False)
    create(client)
    (result,) = send(client, "x", function="hold")
    outer = gevent.Timeout(LONG)
    program = gevent.getcurrent()

    def time_out() -> None:
        wait_until(lambda: gate.entered)
        gevent.get_hub().loop.run_callback(program.throw, outer)

    gevent.spawn(time_out)
    with pytest.raises(gevent.Timeout) as caught, outer:
        server.receive_from_queue("Alice", max_calls=1, timeout=LONG)
    assert caught.value is outer
    assert gate.entered == ["x"]
    gate.open()
    assert server.receive_from_queue("Alice", max_calls=1) == 1
    assert result.get() == "x"


def test_a_timeout_of_the_program_goes_through_while_nothing_comes(server: AmqpRpcServer) -> None:
    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.02) as outer:
        server.receive_from_queue("Alice", timeout=LONG)
    assert caught.value is outer
    with gevent.Timeout(0.02, False):  # type: ignore[arg-type]
        server.receive_from_queue("Alice", timeout=LONG)
        pytest.fail("it was not ended")


@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_lost_however_receivers_are_killed(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str, seed: int
) -> None:
    """Kill at every moment: while waiting, in the instant of delivery, in the handler."""
    # Whatever has not come when its caller's time is over never comes.
    client = make_client(timeout=300.0)
    chance = random.Random(seed)
    begun: Counter[int] = Counter()
    done: Counter[int] = Counter()
    server = make_server(serve=False)

    @server.add_function
    def work(number: int) -> int:
        begun[number] += 1
        for _ in range(number % 3):
            gevent.sleep(0)
        done[number] += 1
        return number

    create(client)
    results: list[Any] = []

    def feed() -> None:
        for number in range(50):
            results.append(client.defer(routing_key="Alice").work(number))
            gevent.sleep(0 if number % 4 else 0.002)

    feeding = gevent.spawn(feed)
    while not (feeding.ready() and all(result.ready() for result in results)):
        limit = chance.choice([None, 1, 3])
        before = len(done)
        receiver = gevent.spawn(server.receive_from_queue, "Alice", limit, LONG)
        for _ in range(chance.choice([0, 1, 2, 5, 20, 200])):
            gevent.sleep(0)
        gevent.sleep(chance.choice([0, 0, 0.001, 0.004, 0.02]))
        if chance.random() < 0.1:
            # However slow the machine, now and then a receiver lives long enough to come through.
            wait_until(lambda before=before: len(done) > before or len(done) == 50)
        receiver.kill()
    assert [result.get() for result in results] == list(range(50))
    assert sorted(done) == list(range(50))
    # What was interrupted, and nothing else, was begun again.
    assert all(times == 1 for times in done.values())
    assert left_in(broker, queue_of(namespace)) == []


# -- a broker in trouble --------------------------------------------------------------------------


def test_all_receivers_go_on_after_their_connection_was_lost(
    make_server: MakeServer, make_client: MakeClient, managed_broker: ManagedBroker
) -> None:
    server, client = make_server(echo, serve=False), make_client()
    labels = [f"user-{n}" for n in range(20)]
    for label in labels:
        create(client, label)
    absent = gevent.spawn(server.receive_from_queue, "absent", max_calls=1)
    receivers = [server.receive_from_queue(label, block=False) for label in labels]
    for label in labels:
        assert client.call(routing_key=label).echo(label) == label
    managed_broker.close_all_connections()
    for label in labels:
        assert client.call(routing_key=label).echo(label) == label
    # More than two if the broker had no ack of the first.
    assert all(receiver.stop() in (2, 3) for receiver in receivers)
    create(client, "absent")
    assert client.call(routing_key="absent").echo(1) == 1
    assert absent.get() == 1


@pytest.mark.slow
def test_receivers_go_on_after_a_restart_of_the_broker(
    make_server: MakeServer, make_client: MakeClient, managed_broker: ManagedBroker
) -> None:
    server, client = make_server(echo, serve=False), make_client()
    create(client)
    # Without a limit: the broker may not have had the ack of the first.
    receiving = server.receive_from_queue("Alice", block=False)
    missing = gevent.spawn(server.receive_from_queue, "Bob", max_calls=1)
    assert client.call(routing_key="Alice").echo(1) == 1
    managed_broker.restart()
    assert client.call(routing_key="Alice").echo(2) == 2
    assert receiving.stop() in (2, 3)
    create(client, "Bob")
    assert client.call(routing_key="Bob").echo(3) == 3
    assert missing.get() == 1


def test_a_request_in_progress_survives_a_lost_connection_and_is_answered_once(
    make_server: MakeServer,
    make_client: MakeClient,
    managed_broker: ManagedBroker,
    namespace: str,
) -> None:
    gate = Gate()
    server, client = make_server(gate.hold, serve=False), make_client()
    create(client)
    receiving = server.receive_from_queue("Alice", block=False)
    (result,) = send(client, "x", function="hold")
    wait_until(lambda: gate.entered)
    managed_broker.close_all_connections()
    # It is delivered again, while it is still in progress.
    wait_receiving(managed_broker, namespace)
    wait_until(lambda: managed_broker.ready_messages(queue_of(namespace)) == 0)
    gate.open()
    assert result.get() == "x"
    assert receiving.stop() == 1
    assert gate.entered == ["x"]
    assert client.unexpected_responses == 0


def test_a_receivers_time_passes_while_the_broker_is_frozen(
    make_server: MakeServer, make_client: MakeClient, managed_broker: ManagedBroker
) -> None:
    server, client = make_server(echo, serve=False), make_client()
    create(client)
    send(client, 1)
    assert server.receive_from_queue("Alice", max_calls=1) == 1
    managed_broker.freeze()
    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(LONG) as outer:
        server.receive_from_queue("Alice", max_calls=1, timeout=0.1)
    assert caught.value is not outer
    managed_broker.thaw()
    send(client, 2)
    assert server.receive_from_queue("Alice", max_calls=1, timeout=LONG) == 1


# -- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("serving", [True, False])
def test_stopping_the_server_ends_its_receivers(
    make_server: MakeServer,
    client: AmqpRpcClient,
    broker: Broker,
    namespace: str,
    serving: bool,
) -> None:
    server = make_server(echo, serve=serving)
    create(client)
    receiver = gevent.spawn(server.receive_from_queue, "Alice", max_calls=9, timeout=LONG)
    missing = gevent.spawn(server.receive_from_queue, "Bob", timeout=LONG)
    background = server.receive_from_queue("Carol", max_calls=1, block=False)
    assert client.call(routing_key="Alice").echo(1) == 1
    server.stop()
    assert receiver.get(timeout=0) == 1
    assert missing.get(timeout=0) == 0
    assert background.wait(timeout=0) == 0
    assert broker.consumers(queue_of(namespace)) == 0
    with pytest.raises(RuntimeError, match="was stopped and receives no more"):
        server.receive_from_queue("Alice")


@pytest.mark.parametrize("serving", [True, False])
def test_stopping_the_server_waits_for_the_handlers_of_its_receivers(
    make_server: MakeServer, client: AmqpRpcClient, serving: bool
) -> None:
    gate = Gate()
    server = make_server(gate.hold, serve=serving)
    create(client)
    receiver = gevent.spawn(server.receive_from_queue, "Alice")
    held, waiting = send(client, "held", "waiting", function="hold")
    wait_until(lambda: gate.entered == ["held"])
    stopping = gevent.spawn(server.stop)
    wait_until(lambda: server.state == "stopping")
    gate.open()
    stopping.get()
    assert receiver.get() == 1
    assert held.get() == "held"
    assert not waiting.ready()

    make_server(gate.hold, serve=False).receive_from_queue("Alice", max_calls=1)
    assert waiting.get() == "waiting"


def test_what_a_receiver_has_not_finished_at_the_end_of_the_stop_timeout_goes_back(
    make_server: MakeServer, client: AmqpRpcClient
) -> None:
    gate = Gate()
    server = make_server(gate.hold, serve=False)
    create(client)
    receiver = gevent.spawn(server.receive_from_queue, "Alice")
    (result,) = send(client, "x", function="hold")
    wait_until(lambda: gate.entered)
    server.stop(timeout=0.05)
    assert not receiver.ready()
    other = make_server(echo, serve=False)
    other.add_function(echo, name="hold")
    assert other.receive_from_queue("Alice", max_calls=1) == 1
    assert result.get() == "x"
    gate.open()
    receiver.get()


def test_a_handler_of_a_receiver_can_stop_the_server(
    make_server: MakeServer, client: AmqpRpcClient
) -> None:
    server = make_server(serve=False)
    server.add_function(server.stop)
    create(client)
    receiver = gevent.spawn(server.receive_from_queue, "Alice")
    assert client.call(routing_key="Alice").stop() is None
    assert receiver.get() == 1
    wait_until(lambda: server.state == "stopped")


def test_a_receiver_ends_with_its_session(
    make_server: MakeServer, make_session: MakeSession, client: AmqpRpcClient, namespace: str
) -> None:
    session = make_session()
    server = make_server(echo, session=session, serve=False)
    create(client)
    attached = gevent.spawn(server.receive_from_queue, "Alice")
    assert client.call(routing_key="Alice").echo(1) == 1
    missing = server.receive_from_queue("Bob", block=False)
    wait_until(lambda: queue_of(namespace, "Bob") in server._worker.queues._missing)
    session.close()
    with pytest.raises(ConnectionLost):
        attached.get(timeout=LONG)
    with pytest.raises(ConnectionLost):
        missing.wait(timeout=LONG)
    with pytest.raises(ConnectionLost):
        server.receive_from_queue("Alice")


def test_a_receiver_is_told_that_the_broker_refuses_the_login(
    make_server: MakeServer, broker: Broker
) -> None:
    url = broker.url.replace("guest:guest", "guest:wrong")
    server = make_server(echo, url=url, serve=False)
    with pytest.raises(AuthenticationError):
        server.receive_from_queue("Alice", timeout=LONG)


def test_an_ignored_request_goes_back_to_the_queue(
    make_server: MakeServer, client: AmqpRpcClient
) -> None:
    unwilling = make_server(serve=False)

    @unwilling.add_function(name="echo")  # type: ignore[call-overload]
    def ignore(value: Any) -> None:
        raise IgnoreRequest

    create(client)
    (result,) = send(client, "x")
    assert unwilling.receive_from_queue("Alice", max_calls=1) == 1
    assert not result.ready()
    willing = make_server(echo, serve=False)
    assert willing.receive_from_queue("Alice", max_calls=1) == 1
    assert result.get() == "x"


def test_a_receiver_that_is_killed_while_it_ignores_a_request_loses_nothing(
    make_server: MakeServer, client: AmqpRpcClient
) -> None:
    entered = Event()
    server = make_server(serve=False)

    @server.add_function(name="echo")  # type: ignore[call-overload]
    def ignore_first(value: Any) -> Any:
        if not entered.is_set():
            entered.set()
            raise IgnoreRequest
        return value

    create(client)
    (result,) = send(client, "x")
    receiver = gevent.spawn(server.receive_from_queue, "Alice")
    entered.wait()
    gevent.sleep(0)
    receiver.kill()
    assert server.receive_from_queue("Alice", max_calls=1) == 1
    assert result.get() == "x"


# -- creating and removing ------------------------------------------------------------------------


def test_creating_a_queue_twice_changes_nothing(
    server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    create(client)
    (result,) = send(client, 1)
    create(client)
    assert server.receive_from_queue("Alice", max_calls=1) == 1
    assert result.get() == 1


def test_creating_a_queue_with_another_expiry_is_refused(
    make_server: MakeServer, client: AmqpRpcClient, namespace: str
) -> None:
    make_server(echo)
    create(client)
    with pytest.raises(
        ChannelClosed, match=f"'x-expires' for queue '{queue_of(namespace)}'"
    ) as caught:
        client.create_new_request_queue("Alice", x_expires=EXPIRES + 1)
    assert caught.value.code == 406
    # It has cost nobody a connection.
    assert client.call.echo(1) == 1


def test_requests_can_have_another_key_than_the_label(
    server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    client.create_new_request_queue("Alice", routing_key="a key", x_expires=EXPIRES)
    result = client.defer(routing_key="a key").echo(1)
    assert server.receive_from_queue("Alice", max_calls=1) == 1
    assert result.get() == 1
    with pytest.raises(Unroutable):
        client.call(routing_key="Alice").echo(1)


def test_removing_a_queue_removes_what_waits_in_it(
    client: AmqpRpcClient, broker: Broker, namespace: str
) -> None:
    create(client)
    send(client, 1)
    client.remove_request_queue("Alice")
    assert not broker.queue_exists(queue_of(namespace))


def test_removing_a_queue_that_does_not_exist_is_fine(client: AmqpRpcClient) -> None:
    client.remove_request_queue("nobody")


def test_queues_can_be_created_and_removed_without_waiting(
    client: AmqpRpcClient, broker: Broker, namespace: str
) -> None:
    client.create_new_request_queue("Alice", x_expires=EXPIRES, nowait=True)
    wait_until(lambda: broker.queue_exists(queue_of(namespace)))
    client.remove_request_queue("Alice", nowait=True)
    wait_until(lambda: not broker.queue_exists(queue_of(namespace)))


def test_a_queue_created_without_waiting_that_is_refused_is_logged(
    client: AmqpRpcClient, caplog: pytest.LogCaptureFixture, namespace: str
) -> None:
    create(client)
    client.create_new_request_queue("Alice", nowait=True)
    wait_until(lambda: queue_of(namespace) in caplog.text)


def test_queues_are_created_by_a_program_that_ends_at_once(
    server: AmqpRpcServer, make_client: MakeClient, namespace: str, url: str
) -> None:
    receiver = gevent.spawn(server.receive_from_queue, "Alice", max_calls=1)
    wait_until(lambda: queue_of(namespace) in server._worker.queues._missing)
    with AmqpRpcClient(namespace, url=url) as short_lived:
        create(short_lived)
    assert make_client().call(routing_key="Alice").echo(1) == 1
    assert receiver.get() == 1


def test_a_closed_client_creates_no_queues(namespace: str, broker: Broker) -> None:
    client = AmqpRpcClient(namespace, url=broker.url)
    client.close()
    with pytest.raises(ConnectionLost, match="is closed"):
        client.create_new_request_queue("Alice")


# -- many -----------------------------------------------------------------------------------------


def test_hundreds_of_receivers_need_few_channels_and_leave_nothing_behind(
    make_server: MakeServer,
    make_client: MakeClient,
    make_session: MakeSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Twenty lanes, as ten thousand receivers have.
    monkeypatch.setattr("amphora.rpc.keyed.attaching.RECEIVERS_PER_LANE", 20)
    session = make_session()
    server = make_server(echo, session=session, serve=False)
    client = make_client(session=session)
    labels = [f"user-{n}" for n in range(400)]
    created = [gevent.spawn(create, client, label) for label in labels]
    receivers = [
        gevent.spawn(server.receive_from_queue, label, max_calls=1, timeout=LONG)
        for label in labels
    ]
    gevent.joinall(created, raise_error=True)
    wait_until(lambda: server._worker.queues.attached == 400, timeout=LONG)
    # About twenty lanes: those who come at the same time may be a few more in one.
    wait_until(lambda: 15 < len(server._worker.queues._lanes) <= 20)
    # The lanes, the answers, the announcements, and four for looking up queues.
    wait_until(lambda: lowest_free_channel(session) <= 27)
    results = [client.defer(routing_key=label).echo(label) for label in labels]
    assert [result.get() for result in results] == labels
    gevent.joinall(receivers, raise_error=True)
    assert [receiver.value for receiver in receivers] == [1] * 400
    # A new channel gets the lowest number that is free.  What stays: the answers, the
    # announcements, a lane for the next receiver, and four channels for looking up queues.
    wait_until(lambda: lowest_free_channel(session) <= 8)
    assert len(server._worker.queues) == 0
    assert not server._worker.queues._missing
    assert client.pending == 0


def lowest_free_channel(session: Any) -> int:
    channel = session.consuming.wait_connected(40).channel()
    channel.close()
    return int(channel.number)
