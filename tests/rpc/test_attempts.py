"""How often a request may be begun, with marks in the queues of a broker that is a dict."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gevent
import hypothesis.strategies as st
import pytest
from gevent.event import Event
from hypothesis import given

from amphora.errors import (
    AccessRefused,
    AmphoraError,
    ChannelClosed,
    ConnectionLost,
    PoisonRequest,
)
from amphora.net.deadline import Deadline
from amphora.rpc.contract import naming
from amphora.rpc.server.requests.attempts import Attempts
from amphora.transport.channels.delivery import Delivery
from amphora.wire.codec import Deliver
from amphora.wire.content import Message
from amphora.wire.properties import Properties
from tests.support.waiting import wait_until

ARGUMENTS = {"x-queue-type": "quorum"}
DEAD = naming.dead_queue("n")


class FakeSession:
    """A session and its channel, as far as attempts are concerned, and the broker behind them."""

    def __init__(self) -> None:
        self.queues: dict[str, list[tuple[Properties, bytes]]] = {}
        self.declared: dict[str, Any] = {}
        # The marks that somebody looks at; and the queues that somebody consumes.
        self.held: list[tuple[str, tuple[Properties, bytes]]] = []
        self.consumed: set[str] = set()
        # Queues whose node is down, and what the broker refuses.
        self.away: set[str] = set()
        self.deleting: AmphoraError | None = None
        self.reading: AmphoraError | None = None
        # How often each operation runs, as after a connection that was lost at its end.
        self.runs = 1
        self.error = None
        self.on_closed: Any = None
        self.until = Deadline(None)
        self.connection = self
        self.frame_max = 131_072

    def operate(
        self, operation: Callable[[Any], Any], timeout: float, *, publishes: bool = False
    ) -> Any:
        for _ in range(self.runs):
            gevent.sleep(0)
            result = operation(self)
        return result

    def call(self, method: Any, *replies: Any, timeout: float | None = None) -> Any:
        assert method.passive
        if method.queue in self.away:
            raise ChannelClosed(404, f"NOT_FOUND - home node of queue '{method.queue}' is down")
        if method.queue not in self.queues and method.queue not in self.consumed:
            raise ChannelClosed(404, f"NOT_FOUND - no queue '{method.queue}' in vhost '/'")
        return SimpleNamespace(
            message_count=len(self.queues.get(method.queue, ())),
            consumer_count=int(method.queue in self.consumed),
        )

    def queue_declare(self, queue: str, arguments: dict[str, Any]) -> Any:
        assert queue not in self.away
        self.declared[queue] = arguments
        return SimpleNamespace(message_count=len(self.queues.setdefault(queue, [])))

    def queue_delete(self, queue: str) -> None:
        if self.deleting is not None:
            raise self.deleting
        self.queues.pop(queue, None)

    def get(self, queue: str) -> Any:
        if self.reading is not None:
            raise self.reading
        if not self.queues[queue]:
            return None
        self.held.append((queue, self.queues[queue].pop(0)))
        properties, body = self.held[-1][1]
        return Message(SimpleNamespace(delivery_tag=len(self.held)), properties, body)

    def nack(self, delivery_tag: int) -> None:
        queue, message = self.held[delivery_tag - 1]
        self.queues[queue].append(message)

    def confirm_select(self) -> None:
        pass

    def publish(
        self,
        exchange: str,
        queue: str,
        properties: Properties,
        body: bytes,
        *,
        mandatory: bool,
        unconfirmed: Any,
    ) -> None:
        assert exchange == ""
        self.queues[queue].append((properties, body))
        unconfirmed.confirmed(True, None)

    @property
    def marks(self) -> int:
        """How many marks there are, of all requests."""
        return sum(len(queue) for name, queue in self.queues.items() if name != DEAD)


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


def attempts_on(
    session: Any, limit: int = 3, *, dead_letter: bool = True, worker_id: str | None = None
) -> Attempts:
    worker_id = worker_id or naming.new_worker_id("n")
    return Attempts(
        session, "n", worker_id, limit=limit, dead_letter=dead_letter, queue_arguments=ARGUMENTS
    )


def request(body: bytes = b"body", **properties: Any) -> Delivery:
    properties.setdefault("correlation_id", "1")
    message = Message(Deliver("tag", 1, True, "exchange", "key"), Properties(**properties), body)
    return Delivery.of(message, None)  # type: ignore[arg-type]


def end_the_server(attempts: Attempts, delivery: Delivery) -> None:
    """Begin a request that ends the process of its server."""
    with pytest.raises(gevent.GreenletExit), attempts.attempt(delivery):
        raise gevent.GreenletExit


def test_a_request_is_marked_while_its_handler_runs(session: FakeSession) -> None:
    attempts = attempts_on(session)
    with attempts.attempt(request()):
        assert session.marks == 1
    assert session.queues == {}


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_a_request_that_ends_its_servers_is_begun_as_often_as_is_allowed(
    session: FakeSession, limit: int
) -> None:
    # The first attempt is that of a request that was not delivered before: it is not marked.
    for _ in range(limit - 1):
        end_the_server(attempts_on(session, limit), request())
    attempts = attempts_on(session, limit)
    told = pytest.raises(PoisonRequest, match=f"was begun {limit} times.*it is kept in {DEAD}")
    with told, attempts.attempt(request()):
        pytest.fail("it is begun once too often")
    assert session.marks == 0


def test_requests_are_counted_each_on_its_own(session: FakeSession) -> None:
    attempts = attempts_on(session)
    for other in (request(b"other"), request(correlation_id="2"), request(reply_to="c")):
        end_the_server(attempts, other)
        end_the_server(attempts, other)
    with attempts.attempt(request()):
        pass
    assert session.marks == 6


def test_a_handler_that_ends_well_takes_back_the_marks_of_all_attempts(
    session: FakeSession,
) -> None:
    attempts = attempts_on(session, 7)
    for _ in range(3):
        end_the_server(attempts, request())
    assert session.marks == 3
    with attempts.attempt(request()):
        pass
    assert session.marks == 0
    end_the_server(attempts, request())
    attempts.unmark(request())
    assert session.marks == 0


def test_a_mark_that_arrived_before_the_connection_was_lost_is_not_made_again(
    session: FakeSession,
) -> None:
    session.runs = 3
    end_the_server(attempts_on(session), request())
    assert session.marks == 1


def test_the_last_permitted_attempt_runs_alone(session: FakeSession) -> None:
    attempts = attempts_on(session)
    requests = [request(correlation_id=str(number)) for number in range(2)]
    for each in requests:
        end_the_server(attempts_on(session), each)
    running: list[str | None] = []
    release = Event()

    def run(delivery: Delivery) -> None:
        with attempts.attempt(delivery):
            running.append(delivery.properties.correlation_id)
            release.wait()
            running.remove(delivery.properties.correlation_id)

    greenlets = [gevent.spawn(run, each) for each in requests]
    # One at its second attempt of three waits for nobody.
    greenlets.append(gevent.spawn(run, request(correlation_id="innocent")))
    wait_until(lambda: len(running) == 2)
    gevent.sleep(0.01)  # long enough for what must not happen
    assert set(running) == {"0", "innocent"}
    # The one that waits is not marked: it is not guilty of what happens meanwhile.
    assert session.marks == 2 + 2
    release.set()
    gevent.joinall(greenlets, timeout=20, raise_error=True)
    assert session.marks == 0


def test_of_requests_that_look_alike_those_in_progress_are_no_attempts_at_the_others(
    session: FakeSession,
) -> None:
    living = attempts_on(session, worker_id="living")
    session.consumed.add(naming.management_queue("living"))
    with living.attempt(request()), living.attempt(request()), living.attempt(request()):
        assert session.marks == 3
        with attempts_on(session).attempt(request()):
            assert session.marks == 4
    assert session.marks == 0


def test_a_request_that_ends_its_servers_is_given_up_though_another_looks_like_it(
    session: FakeSession,
) -> None:
    living = attempts_on(session, worker_id="living")
    session.consumed.add(naming.management_queue("living"))
    with living.attempt(request()):
        end_the_server(attempts_on(session), request())
        end_the_server(attempts_on(session), request())
        told = pytest.raises(PoisonRequest, match="was begun 3 times")
        with told, attempts_on(session).attempt(request()):
            pytest.fail("it is begun once too often")


def test_marks_that_may_not_be_read_are_counted_all(session: FakeSession) -> None:
    end_the_server(attempts_on(session, 2), request())
    session.reading = AccessRefused(403, "ACCESS_REFUSED - read access to queue refused")
    with pytest.raises(PoisonRequest), attempts_on(session, 2).attempt(request()):
        pytest.fail("it is begun once too often")


def test_marks_that_were_deleted_before_they_were_read_do_not_count(session: FakeSession) -> None:
    end_the_server(attempts_on(session, 2), request())
    session.reading = ChannelClosed(404, "NOT_FOUND - no queue")
    with attempts_on(session, 2).attempt(request()):
        pass


def test_the_mark_of_a_server_whose_node_is_away_is_not_counted(session: FakeSession) -> None:
    end_the_server(attempts_on(session, 2, worker_id="away"), request())
    session.away.add(naming.management_queue("away"))
    with attempts_on(session, 2).attempt(request()):
        pass


def test_what_is_given_up_is_kept_as_it_was_but_for_what_would_lose_it(
    session: FakeSession,
) -> None:
    sent = request(b"\x00\xff", expiration="5000", user_id="guest", headers={"mine": 1})
    with pytest.raises(PoisonRequest), attempts_on(session, 1).attempt(sent):
        pass
    assert session.declared[DEAD] == ARGUMENTS
    [(properties, body)] = session.queues[DEAD]
    assert body == b"\x00\xff"
    assert properties.correlation_id == "1"
    assert properties.headers is not None
    died = properties.headers.pop("x-amphora-died")
    assert abs(died / 1000 - time.time()) < 3600
    assert properties.headers == {
        "mine": 1,
        "x-amphora-reason": "poison",
        "x-amphora-attempts": 1,
        "x-amphora-exchange": "exchange",
        "x-amphora-routing-key": "key",
        "x-amphora-user": "guest",
    }
    assert properties.expiration is None
    assert properties.user_id is None
    # The request itself is as it was: it has to be answered yet.
    assert sent.properties.headers == {"mine": 1}
    assert sent.properties.expiration == "5000"


def test_the_queue_for_what_was_given_up_is_taken_as_it_is(session: FakeSession) -> None:
    session.queues[DEAD] = []
    with pytest.raises(PoisonRequest), attempts_on(session, 1).attempt(request()):
        pass
    assert DEAD not in session.declared
    assert len(session.queues[DEAD]) == 1


def test_a_server_that_keeps_nothing_says_nothing_of_it(session: FakeSession) -> None:
    attempts = attempts_on(session, 1, dead_letter=False)
    with pytest.raises(PoisonRequest, match=r"it is not tried again$"), attempts.attempt(request()):
        pass
    assert session.queues == {}


def test_while_the_node_of_its_marks_is_away_a_request_is_marked_elsewhere(
    session: FakeSession,
) -> None:
    attempts = attempts_on(session)
    end_the_server(attempts, request())
    [queue] = session.queues
    session.away.add(queue)
    end_the_server(attempts, request())
    assert session.queues.keys() == {queue, f"{queue}.2"}


def test_marks_that_cannot_be_taken_back_change_nothing_for_the_handler(
    session: FakeSession,
) -> None:
    session.deleting = ConnectionLost("lost")
    with attempts_on(session).attempt(request()):
        pass
    assert session.marks == 1
    [arguments] = session.declared.values()
    assert arguments["x-expires"] > 0


@pytest.mark.parametrize("limit", [0, -1, True, 2.0, "3", None])
def test_the_limit_is_a_number_of_attempts(session: FakeSession, limit: Any) -> None:
    with pytest.raises(ValueError, match="max_attempts"):
        attempts_on(session, limit)


# Few, so that they are equal now and then.
ids = st.text("ab", max_size=2)
bodies = st.sampled_from([b"", b"a", b"ab"])


@given(ids, ids, bodies, ids, ids, bodies)
def test_marks_are_named_after_all_that_the_sender_chose(
    one_id: str, one_to: str, one_body: bytes, other_id: str, other_to: str, other_body: bytes
) -> None:
    session = FakeSession()
    one = request(one_body, message_id=one_id, reply_to=one_to)
    other = request(other_body, message_id=other_id, reply_to=other_to)
    for delivery in (one, other):
        end_the_server(attempts_on(session), delivery)
    same = (one_id, one_to, one_body) == (other_id, other_to, other_body)
    assert len(session.queues) == (1 if same else 2)
    for queue in session.queues:
        assert queue.removeprefix("rpc_n_attempts_").isalnum()
        assert queue.isascii()
