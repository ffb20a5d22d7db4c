"""When the answers of all servers are all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import gevent
import pytest

from amphora.errors import NoResult
from amphora.rpc.client.waiting import gather as gathers
from amphora.rpc.client.waiting.gather import Gathered, PendingGather
from amphora.rpc.client.waiting.pending import Pending
from amphora.transport.publishing.outgoing import Outgoing
from amphora.wire.properties import Properties
from amphora.wire.templates import PropertiesTemplate

TIMEOUT = 30.0


class Room:
    """The servers of a gather, as the broker counts them, and the counts that were asked for."""

    def __init__(self, there: int) -> None:
        self.there = there
        template = PropertiesTemplate(Properties())
        self.outgoing = Outgoing("", "", template, "1", b"", needs=(), on_done=None)
        # Those of `there` who have left since they were counted.
        self.left: set[str] = set()
        self.request = PendingGather(self, "f", TIMEOUT, self.outgoing, self)  # type: ignore[arg-type]
        self.gathered = Gathered(self.request)
        self.asked_when_sent: list[bool] = []
        # Done in the middle of a count.
        self.meanwhile: Callable[[], object] = lambda: None

    def send(self) -> None:
        """Have the broker confirm the request."""
        self.outgoing.confirmed(True, None)

    def discard(self, pending: Pending) -> None:
        pass

    def withdraw(self, pending: Pending) -> None:
        pass

    def in_its_thread(self, function: Callable[[], object]) -> None:
        function()

    def count(self) -> int:
        self.asked_when_sent.append(self.outgoing.done)
        there = self.there
        self.meanwhile()
        return there

    def gone(self, workers: Collection[str], moved: Mapping[str, str]) -> frozenset[str]:
        return frozenset(self.left.intersection(workers))

    def back_at(self) -> float:
        return 0.0


@pytest.fixture
def gather() -> Iterator[Callable[[Room], gevent.Greenlet]]:
    """Collect the workers that answer, in the background."""
    greenlets: list[gevent.Greenlet] = []

    def start(room: Room) -> gevent.Greenlet:
        greenlet = gevent.spawn(lambda: [reply.worker for reply in room.gathered])
        greenlets.append(greenlet)
        return greenlet

    yield start
    gevent.killall(greenlets)


def test_it_does_not_end_before_its_request_was_sent(
    gather: Callable[[Room], gevent.Greenlet],
) -> None:
    room = Room(there=0)
    gathering = gather(room)
    gathering.join(timeout=0.2)  # long enough for several counts
    assert not gathering.ready()
    room.there = 1
    room.send()
    room.request.answered("first", 1, None)
    assert gathering.get(timeout=TIMEOUT) == ["first"]
    assert all(room.asked_when_sent)


@pytest.fixture
def without_a_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody counted after a pause."""
    for pause in ("FIRST_PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(gathers, pause, 100 * TIMEOUT)


@pytest.mark.usefixtures("without_a_second_look")
def test_the_last_answer_ends_it_although_the_request_is_not_confirmed(
    gather: Callable[[Room], gevent.Greenlet],
) -> None:
    room = Room(there=2)
    gathering = gather(room)
    for worker in ("first", "second"):
        gevent.idle()
        room.request.answered(worker, 1, None)
    assert gathering.get(timeout=TIMEOUT) == ["first", "second"]
    assert room.gathered.complete
    assert not any(room.asked_when_sent)


@pytest.mark.usefixtures("without_a_second_look")
def test_answers_that_come_while_the_servers_are_counted_end_it(
    gather: Callable[[Room], gevent.Greenlet],
) -> None:
    room = Room(there=3)
    room.meanwhile = lambda: [room.request.answered(each, 1, None) for each in ("2nd", "3rd")]
    room.request.answered("1st", 1, None)
    assert gather(room).get(timeout=TIMEOUT) == ["1st", "2nd", "3rd"]
    assert room.gathered.complete
    assert len(room.asked_when_sent) == 2


def test_it_ends_when_all_have_answered_or_ignored(
    gather: Callable[[Room], gevent.Greenlet],
) -> None:
    room = Room(there=2)
    room.send()
    gathering = gather(room)
    room.request.ignored("first")
    room.request.answered("second", 1, None)
    assert gathering.get(timeout=TIMEOUT) == ["second"]
    assert room.gathered.complete
    assert (room.gathered.expected, room.gathered.missing) == (2, 0)


def test_it_does_not_wait_for_a_server_that_goes(
    gather: Callable[[Room], gevent.Greenlet],
) -> None:
    room = Room(there=2)
    room.send()
    gathering = gather(room)
    room.request.answered("first", 1, None)
    while not room.asked_when_sent:
        gevent.sleep(0.001)
    room.there = 1
    assert gathering.get(timeout=TIMEOUT) == ["first"]
    assert not room.gathered.complete
    assert (room.gathered.expected, room.gathered.missing) == (2, 1)
    assert not room.gathered.timed_out


def test_an_answer_of_a_late_server_is_not_taken_for_that_of_another(
    gather: Callable[[Room], gevent.Greenlet],
) -> None:
    room = Room(there=2)
    room.send()
    gathering = gather(room)
    room.request.answered("first", 1, None)
    while not room.asked_when_sent:
        gevent.sleep(0.001)
    room.there = 3
    room.request.answered("late", 2, None)
    gathering.join(timeout=0.2)  # long enough for several counts
    assert not gathering.ready()
    room.request.answered("second", 3, None)
    assert gathering.get(timeout=TIMEOUT) == ["first", "late", "second"]


def test_who_has_answered_and_left_does_not_stand_for_one_who_is_there(
    gather: Callable[[Room], gevent.Greenlet],
) -> None:
    room = Room(there=1)
    room.send()
    # Two of three have answered and are gone before anybody was counted.
    room.left = {"first", "second"}
    room.request.answered("first", 1, None)
    room.request.answered("second", 2, None)
    gathering = gather(room)
    gathering.join(timeout=0.2)  # long enough for several counts
    assert not gathering.ready()
    room.request.answered("third", 3, None)
    assert gathering.get(timeout=TIMEOUT) == ["first", "second", "third"]


def test_one_that_had_ended_before_anybody_looked_knows_whether_it_is_complete() -> None:
    for there, complete in ((1, True), (2, False)):
        room = Room(there)
        room.send()
        room.request.answered("first", 1, None)
        room.request.fail(NoResult("late"))
        assert [reply.worker for reply in room.gathered] == ["first"]
        assert room.gathered.timed_out
        assert room.gathered.complete is complete
