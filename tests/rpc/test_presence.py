"""Whether somebody serves: asked before a request is sent, and told when no answer came in time."""

from __future__ import annotations

from math import inf
from time import monotonic
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent.event import Event

from amphora import AmqpRpcClient, ConnectionLost, NoResult, NoServer, Unroutable
from amphora.errors import ChannelClosed
from amphora.rpc.client.workers.presence import MOST_TOLD, ServerPresence
from amphora.rpc.contract import naming
from amphora.transport.links.topology import Binding, Exchange, Queue, Topology
from tests.support.brokers import Broker, ManagedBroker, on_embedded
from tests.support.passive import AskedSession, away, silent
from tests.support.recorder import Question, Recorder
from tests.support.rpc import Gate, MakeClient, MakeServer, MakeSession, add
from tests.support.waiting import wait_until

REFUSED = ChannelClosed(403, "ACCESS_REFUSED")
EXPIRES = 60.0
# Seconds within which whatever has a deadline of less than one ends, on a busy machine too.
CALL_ENDS = 40.0


def looks(recorder: Recorder, namespace: str) -> list[Question]:
    """Return the questions for the queue of the roll call."""
    about = f"{naming.roll_call_queue(namespace)} (passive)"
    return [question for question in recorder.questions if question.about == about]


# -- wait_for_server ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["call", "defer", "cast"])
def test_a_request_that_is_not_to_wait_is_not_sent_where_nobody_serves(
    make_client: MakeClient, broker: Broker, namespace: str, way: str
) -> None:
    client = make_client()
    client.cast(wait_publish=True).add(1, 2)
    for _ in range(3):
        with pytest.raises(NoServer) as caught:
            getattr(client, way)(wait_for_server=0).add(1, 2)
        assert (
            str(caught.value)
            == f"{namespace}.add was not sent: no server of {namespace} is running"
        )
        assert caught.value.executed is False
    assert client.pending == 0
    client.cast(wait_publish=True).add(1, 2)
    assert broker.ready_messages(naming.request_queue(namespace)) == 2


def test_a_misspelt_namespace_gets_no_queue_if_the_request_is_not_to_wait(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    with pytest.raises(NoServer):
        make_client().call(wait_for_server=0).add(1, 2)
    assert not broker.queue_exists(naming.request_queue(namespace))


def test_where_somebody_serves_a_request_is_sent_at_once(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(add)
    wait_until(lambda: server.ready)
    client = make_client()
    assert client.call(wait_for_server=0).add(1, 2) == 3
    assert client.defer(wait_for_server=0).add(3, 4).get() == 7
    server.stop()
    # The answer is used for a second; then it is known.
    wait_until(lambda: nobody(client))
    make_server(add)
    assert client.call(wait_for_server=5).add(5, 6) == 11


def nobody(client: AmqpRpcClient) -> bool:
    try:
        client.cast(wait_for_server=0).add(1, 2)
    except NoServer:
        return True
    return False


@pytest.mark.parametrize("way", ["call", "defer", "cast"])
def test_a_request_waits_for_a_server(
    make_server: MakeServer, make_client: MakeClient, way: str
) -> None:
    client = make_client()
    waiting = gevent.spawn(getattr(client, way)(wait_for_server=15).done, 1)
    with pytest.raises(NoServer):
        client.call(wait_for_server=0).done(0)
    assert not waiting.ready()
    done: list[int] = []
    server = make_server(serve=False)
    server.add_function(done.append, name="done")
    server.serve()
    wait_until(lambda: done)
    assert done == [1]
    waiting.get()


def test_the_wait_ends_after_its_seconds(make_client: MakeClient) -> None:
    client = make_client()
    nobody(client)
    began = monotonic()
    with pytest.raises(NoServer):
        client.call(wait_for_server=0.3).add(1, 2)
    assert 0.3 <= monotonic() - began < CALL_ENDS


def test_the_wait_ends_at_the_deadline_of_the_call(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whether anybody is there would be asked again, and the answer may come too late.
    monkeypatch.setattr("amphora.rpc.client.workers.presence.KNOWN_FOR", EXPIRES)
    client = make_client()
    nobody(client)
    for way in (client.call, client.defer, client.cast):
        began = monotonic()
        with pytest.raises(NoServer):
            way(timeout=1.0, wait_for_server=60).add(1, 2)
        assert 1.0 <= monotonic() - began < CALL_ENDS


def test_the_wait_counts_into_the_time_of_the_call(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    client = make_client()
    began = monotonic()
    waiting = gevent.spawn(client.call(timeout=8.0, wait_for_server=8.0).hold)
    gevent.spawn_later(0.5, make_server, gate.hold)
    with pytest.raises(NoResult, match="within 8 s"):
        waiting.get()
    assert monotonic() - began < 8.0 + CALL_ENDS
    gate.open()


def test_a_tune_function_can_have_requests_wait(make_client: MakeClient) -> None:
    client = make_client()
    client.tune_function("add")(lambda args, kwargs: {"wait_for_server": 0})
    with pytest.raises(NoServer):
        client.call.add(1, 2)


@on_embedded
@pytest.mark.parametrize("seconds", [-1, "5", None, True, inf, float("nan")])
def test_what_is_no_time_to_wait_is_refused(make_client: MakeClient, seconds: Any) -> None:
    with pytest.raises(ValueError, match="wait_for_server must be "):
        make_client().call(wait_for_server=seconds).add(1, 2)
    with pytest.raises(ValueError, match="a routing key must be text"):
        make_client().call(wait_for_server=0, routing_key="").add(1, 2)


def test_without_a_broker_the_call_says_so_and_not_that_nobody_serves(
    namespace: str, closed_port: int
) -> None:
    with (
        AmqpRpcClient(namespace, amqp_port=closed_port) as client,
        pytest.raises(NoResult, match="not sent; no connection to") as caught,
    ):
        client.call(timeout=1.0, wait_for_server=0).add(1, 2)
    assert caught.value.executed is False


@pytest.mark.parametrize("what", ["client", "session"])
def test_a_close_ends_the_wait(
    make_client: MakeClient, make_session: MakeSession, what: str
) -> None:
    session = make_session()
    client = make_client(session=session)
    nobody(client)
    waiting = gevent.spawn(client.call(wait_for_server=15).add, 1, 2)
    gevent.sleep(0)
    (client if what == "client" else session).close()
    with pytest.raises(ConnectionLost) as caught:
        waiting.get(timeout=CALL_ENDS)
    assert caught.value.executed is False
    with pytest.raises(ConnectionLost):
        client.call(wait_for_server=0).add(1, 2)


def test_a_loop_of_calls_that_find_nobody_lets_others_run(make_client: MakeClient) -> None:
    client = make_client()
    nobody(client)
    turns: list[int] = []

    def others() -> None:
        while True:
            turns.append(1)
            gevent.sleep(0)

    running = gevent.spawn(others)
    for _ in range(10):
        nobody(client)
    assert len(turns) >= 5
    running.kill()


def test_a_caller_that_is_killed_while_it_asks_leaves_the_question_to_others(
    make_client: MakeClient,
) -> None:
    client = make_client()
    nobody(client)
    callers = [gevent.spawn(client.call(wait_for_server=1).add, 1, 2) for _ in range(3)]
    gevent.sleep(0)
    callers[0].kill()
    for caller in callers[1:]:
        with pytest.raises(NoServer):
            caller.get()


def test_the_broker_is_asked_once_a_second_whatever_the_number_of_calls(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    server = make_server(add)
    wait_until(lambda: server.ready)
    with Recorder(broker.port) as recorder:
        client = make_client(url=recorder.url)
        began = monotonic()
        calls = [gevent.spawn(client.call(wait_for_server=0).add, n, 1) for n in range(50)]
        assert [call.get() for call in calls] == [n + 1 for n in range(50)]
        for number in range(20):
            assert client.call(wait_for_server=0).add(number, 1) == number + 1
        assert len(looks(recorder, namespace)) <= 1 + (monotonic() - began)
        # Nor are others told to wait while nobody comes.
        server.stop()
        wait_until(lambda: nobody(client))
        began, before = monotonic(), len(looks(recorder, namespace))
        waiting = [gevent.spawn(client.call(wait_for_server=1).add, 1, 2) for _ in range(50)]
        gevent.joinall(waiting)
        assert {type(each.exception) for each in waiting} == {NoServer}
        assert len(looks(recorder, namespace)) - before <= 8 * (monotonic() - began)


def test_a_server_that_is_in_no_roll_call_is_found(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    # As one of amphora 0.1, or of another language.
    queue, exchange = naming.request_queue(namespace), naming.request_exchange(namespace)
    arguments = naming.queue_arguments("classic")
    requests = Topology(
        Exchange(exchange), Queue(queue, arguments=arguments), Binding(queue, exchange)
    )
    taken: list[Any] = []
    with broker.channel() as channel:
        requests.declare(channel)
        channel.consume(queue, taken.append, "another", no_ack=True)
        client = make_client()
        client.cast(wait_publish=True).add(1, 2)
        with pytest.raises(NoResult, match=rf"within 4 s: {namespace} is served; the request"):
            client.call(timeout=4, wait_for_server=0).add(1, 2)
        wait_until(lambda: len(taken) == 2)


# -- the queue of a key ---------------------------------------------------------------------------


def test_the_queue_of_a_key_needs_a_receiver(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    server, client = make_server(add), make_client()
    client.create_new_request_queue("Alice", x_expires=EXPIRES)
    to_alice = client.call(wait_for_server=0, routing_key="Alice")
    with pytest.raises(NoServer) as caught:
        to_alice.add(1, 2)
    assert str(caught.value) == (
        f"{namespace}.add was not sent:"
        f" no server receives from the request queue 'Alice' of {namespace}"
    )
    assert broker.ready_messages(naming.labelled_queue(namespace, "Alice")) == 0
    receiving = server.receive_from_queue("Alice", block=False)
    assert client.call(wait_for_server=60, routing_key="Alice").add(1, 2) == 3
    assert to_alice.add(3, 4) == 7
    receiving.stop()


def test_a_key_whose_queue_cannot_be_known_counts_as_served(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    client = make_client()
    with pytest.raises(Unroutable):
        client.call(wait_for_server=0, routing_key="Alice").add(1, 2)
    client.create_new_request_queue("screen", routing_key="Alice", x_expires=EXPIRES)
    with pytest.raises(NoResult, match=r"within 8 s: the request is in the queue or running"):
        client.call(timeout=8, wait_for_server=0, routing_key="Alice").add(1, 2)


# -- what is told at the deadline -----------------------------------------------------------------


def test_no_result_says_that_nobody_serves(make_client: MakeClient, namespace: str) -> None:
    client = make_client()
    client.cast(wait_publish=True).add(1, 2)
    began = monotonic()
    with pytest.raises(NoResult) as caught:
        client.call(timeout=8).add(1, 2)
    assert monotonic() - began < CALL_ENDS
    assert str(caught.value) == (
        f"no result of {namespace}.add within 8 s: no server of {namespace} is running;"
        " the request waited in its queue"
    )
    assert caught.value.executed is None
    assert client.pending == 0


def test_no_result_says_that_somebody_serves(
    make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    gate = Gate()
    server = make_server(gate.hold)
    wait_until(lambda: server.ready)
    result = make_client().defer(timeout=8).hold()
    wait_until(lambda: gate.entered or result.ready())
    with pytest.raises(NoResult, match=f"{namespace} is served; the request is queued or running"):
        result.get()
    gate.open()


def test_no_result_says_that_no_server_takes_requests(
    make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    client = make_client()
    client.cast(wait_publish=True).add(1, 2)
    # The queue that the client has made is of another type, which the server cannot use.
    server = make_server(add, queue_type="quorum")
    wait_until(lambda: server._worker.intake.consumer.trouble is not None)
    wait_until(lambda: not nobody(client))
    with pytest.raises(
        NoResult, match=f"within 4 s: a server of {namespace} is there, but none takes"
    ):
        client.call(timeout=4).add(1, 2)


def test_no_result_of_a_key_tells_of_its_queue(
    make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    gate, client = Gate(), make_client()
    server = make_server(gate.hold)
    client.create_new_request_queue("Alice", x_expires=EXPIRES)
    with pytest.raises(
        NoResult, match=r"no server receives from the request queue 'Alice' of .* waited in"
    ):
        client.call(timeout=8, routing_key="Alice").hold()
    receiving = server.receive_from_queue("Alice", block=False)
    result = client.defer(timeout=8, routing_key="Alice").hold()
    wait_until(lambda: gate.entered or result.ready())
    with pytest.raises(NoResult, match="a server receives from the request queue 'Alice'"):
        result.get()
    gate.open()
    receiving.stop()


def test_no_result_says_that_a_request_may_have_gone_with_the_queue_of_its_key(
    make_client: MakeClient, make_server: MakeServer
) -> None:
    make_server()
    client = make_client()
    client.create_new_request_queue("Alice", x_expires=EXPIRES)
    result = client.defer(timeout=8, routing_key="Alice", wait_publish=True).add(1, 2)
    client.remove_request_queue("Alice")
    with pytest.raises(NoResult, match=r"in the queue or running, or was removed with its queue"):
        result.get()


@pytest.mark.hurried
def test_a_broker_that_does_not_answer_delays_no_error(
    make_server: MakeServer, make_client: MakeClient, managed_broker: ManagedBroker
) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    results = [client.defer(timeout=8, wait_publish=True).hold() for _ in range(3)]
    wait_until(lambda: len(gate.entered) == 3 or results[0].ready())
    managed_broker.freeze()
    for result in results:
        with pytest.raises(NoResult, match="within 8 s: the request is in the queue or running"):
            result.get()
    managed_broker.thaw()
    gate.open()


def test_for_many_calls_that_end_at_once_the_broker_is_asked_once(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    with Recorder(broker.port) as recorder:
        client = make_client(url=recorder.url)
        client.cast(wait_publish=True).add(1, 2)
        began = monotonic()
        results = [client.defer(timeout=3).add(n, 1) for n in range(100)]
        for result in results:
            with pytest.raises(NoResult, match="no server of"):
                result.get()
        assert len(looks(recorder, namespace)) <= 1 + 5 * (monotonic() - began)


def test_an_answer_that_comes_while_the_broker_is_asked_is_taken() -> None:
    session, presence = asked((0, 1))
    session.answer = Event()
    told: list[Any] = []
    presence.tell("", told.append)
    gevent.sleep(0)
    assert told == []
    session.answer.set()
    wait_until(lambda: told == [True])


# -- what the broker says -------------------------------------------------------------------------


def asked(found: Any = None, back_at: float = 0.0, **queues: Any) -> tuple[Any, ServerPresence]:
    """Return a session, and what asks it; `found` is the queue of the roll call."""
    session: Any = AskedSession(**queues)
    if found is not None:
        session.queues["rpc_n_rollcall"] = found
    session.consuming = SimpleNamespace(
        connection=session.connection, lost_at=back_at, restored_at=back_at
    )
    return session, ServerPresence(session, "n")


def told_by(presence: ServerPresence, key: str = "") -> bool | None:
    """Return what is told, once it is."""
    told: list[bool | None] = []
    presence.tell(key, told.append)
    wait_until(lambda: told)
    (there,) = told
    return there


@pytest.mark.parametrize("requests", [None, (5, 0)])
def test_nobody_is_there_without_a_worker_and_without_another_consumer(requests: Any) -> None:
    others = {} if requests is None else {"rpc_n_request": requests}
    assert told_by(asked(**others)[1]) is False
    assert told_by(asked((0, 0), **others)[1]) is False


def test_a_worker_or_another_consumer_is_there() -> None:
    session, presence = asked((0, 2))
    assert presence.look("", 20) is True
    assert session.asked == ["rpc_n_rollcall"]
    assert told_by(asked((0, 0), rpc_n_request=(0, 1))[1]) is True
    assert told_by(asked(rpc_n_request=(0, 1))[1]) is True


@pytest.mark.parametrize(
    ("requests", "where"),
    [
        ((5, 1), "n is served"),
        (silent(), "n is served"),
        ((5, 0), "a server of n is there, but none"),
    ],
)
def test_a_worker_that_is_there_takes_requests_if_anybody_does(requests: Any, where: str) -> None:
    presence = asked((0, 2), rpc_n_request=requests)[1]
    assert told_by(presence) is True
    assert presence.where("", True).startswith(where)


def test_what_was_seen_of_servers_is_forgotten_when_they_are_looked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("amphora.rpc.client.workers.presence.TOLD_FOR", 60.0)
    session, presence = asked((0, 1), rpc_n_request=(5, 0))
    assert told_by(presence) is True
    assert "none takes requests" in presence.where("", True)
    session.queues["rpc_n_request"] = (5, 1)
    # As before a call with `wait_for_server`, whose time is over a moment later.
    assert presence._look(None, 0.0, 20) is True
    assert told_by(presence) is True
    assert presence.where("", True).startswith("n is served")


@pytest.mark.parametrize("answer", [away(), silent(), REFUSED])
def test_what_the_broker_does_not_tell_is_unknown(answer: Exception) -> None:
    assert told_by(asked(answer)[1]) is None
    assert told_by(asked((0, 0), rpc_n_request=answer)[1]) is None
    assert told_by(asked(rpc_n_queue_Alice=answer)[1], "Alice") is None


def test_of_a_key_the_queue_of_that_label_is_asked() -> None:
    for there in (True, False):
        session, presence = asked(rpc_n_queue_Alice=(0, int(there)))
        assert told_by(presence, "Alice") is there
        assert session.asked == ["rpc_n_queue_Alice"]
    assert told_by(asked()[1], "Alice") is None
    assert told_by(asked()[1], naming.routing_key_for("x" * 200)) is None


def test_servers_that_may_be_coming_back_are_not_absent() -> None:
    assert told_by(asked((0, 0), back_at=monotonic())[1]) is None
    assert told_by(asked((0, 1), back_at=monotonic())[1]) is True


@pytest.mark.hurried
def test_a_silent_broker_is_waited_for_a_moment_only() -> None:
    session, presence = asked((0, 1))
    session.answer = Event()
    began = monotonic()
    assert told_by(presence) is None
    assert monotonic() - began < CALL_ENDS
    presence.close()
    session.answer.set()


def test_of_too_many_queues_at_once_nothing_is_asked() -> None:
    session, presence = asked()
    session.answer = Event()
    told: list[Any] = []
    for number in range(MOST_TOLD + 5):
        presence.tell(f"key {number}", told.append)
    assert told == [None] * 5
    session.answer.set()
    wait_until(lambda: len(told) == MOST_TOLD + 5)
    assert len(session.asked) == MOST_TOLD


def test_there_is_an_end_to_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amphora.rpc.client.workers.presence.MOST_KNOWN", 10)
    _, presence = asked()
    for number in range(25):
        assert told_by(presence, f"key {number}") is None
    assert len(presence._known) <= 10


def test_whoever_kills_what_asks_hangs_nobody() -> None:
    session, presence = asked((0, 1))
    session.answer = Event()
    told: list[Any] = []
    for _ in range(2):
        presence.tell("", told.append)
    # Before they have run.
    gevent.killall([*presence._tellers, *presence._asking.values()])
    wait_until(lambda: told == [None, None])
    session.answer.set()
    assert told_by(presence) is True


def test_in_a_forked_child_nobody_is_told_what_the_parent_asked() -> None:
    session, presence = asked((0, 1))
    session.answer = Event()
    told: list[Any] = []
    presence.tell("", told.append)
    gevent.sleep(0)
    presence.forget()
    session.answer = None
    assert told_by(presence) is True
    assert told == []


# -- the queue of the roll call -------------------------------------------------------------------


def test_the_queue_of_the_roll_call_is_classic_whatever_the_others_are(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    server = make_server(add, queue_type="quorum")
    wait_until(lambda: server.ready)
    assert make_client().call(wait_for_server=0).add(1, 2) == 3

    def declare(kind: str) -> None:
        # It is refused unless it is the same.
        expires = round(naming.LEFT_QUEUE_EXPIRES * 1000)
        with broker.channel() as channel:
            channel.queue_declare(
                naming.roll_call_queue(namespace),
                arguments={"x-queue-type": kind, "x-expires": expires},
            )

    declare("classic")
    with pytest.raises(ChannelClosed, match="406"):
        declare("quorum")
