"""When a number of servers is believed, without a broker and without waiting."""

from __future__ import annotations

from collections.abc import Collection

from amphora.rpc.client.workers.attendance import HOLD, LEAVING, SHORT_HOLD, Attendance

# Seconds between two counts; exact in a float.
STEP = 0.125


class Watched:
    """An attendance, and a clock."""

    def __init__(self, back_at: float = -1.0) -> None:
        self.attendance = Attendance()
        self.now = 0.0
        self.back_at = back_at

    def count(self, present: int, heard: int = 0, gone: Collection[str] | None = None) -> bool:
        """Count a moment after the last count."""
        self.now += STEP
        return self.attendance.counted(self.now, present, gone, heard, self.back_at)

    def seconds_until_believed(
        self, present: int, heard: int = 0, gone: Collection[str] | None = None
    ) -> float:
        began = self.now
        while not self.count(present, heard, gone):
            assert self.now - began < 60, "it is never believed"
        return self.now - began - STEP


def test_when_all_have_answered_it_is_known_at_once() -> None:
    assert Watched().count(present=3, heard=3)
    assert Watched().count(present=2, heard=3)  # one that was not waited for


def test_who_is_there_is_waited_for() -> None:
    room = Watched()
    assert not any(room.count(present=3, heard=2) for _ in range(1000))
    assert room.attendance.silent == 1
    assert room.attendance.missing(heard=2) == 1


def test_a_lower_number_is_believed_when_it_has_held() -> None:
    room = Watched()
    assert not room.count(present=3, heard=1)
    assert room.seconds_until_believed(present=1, heard=1) == HOLD
    assert room.attendance.missing(heard=1) == 2


def test_a_server_that_comes_back_is_waited_for_again() -> None:
    room = Watched()
    assert not room.count(present=3, heard=2)
    away = ("one", "other")
    for _ in range(int(HOLD / STEP)):
        assert not room.count(present=0, heard=2, gone=away)
    assert not any(room.count(present=1, heard=2, gone=away) for _ in range(1000))
    assert room.count(present=3, heard=3, gone=())
    assert room.attendance.missing(heard=3) == 0


def test_servers_that_answer_while_they_come_back_end_it_at_once() -> None:
    room = Watched()
    assert not room.count(present=3)
    assert not room.count(present=0)
    assert not room.count(present=1, heard=1)
    assert room.count(present=2, heard=3)


def test_the_time_begins_anew_with_each_change_and_with_each_time_nobody_could_be_asked() -> None:
    room = Watched()
    assert not room.count(present=3)
    for present in (2, 1, 0):
        for _ in range(int(HOLD / STEP) - 1):
            assert not room.count(present, heard=present)
    room.attendance.unknown()
    assert room.seconds_until_believed(present=0) == HOLD


def test_that_nobody_was_there_is_believed_after_a_moment() -> None:
    room = Watched()
    assert room.seconds_until_believed(present=0) == SHORT_HOLD
    assert room.attendance.missing(heard=0) == 0


def test_after_nobody_the_first_to_come_back_does_not_stand_for_all() -> None:
    room = Watched()
    assert not room.count(present=0)
    assert not room.count(present=1, heard=1)
    assert not room.count(present=3, heard=1)
    assert room.seconds_until_believed(present=3, heard=3) == SHORT_HOLD - STEP


def test_no_number_is_believed_while_others_come_back_from_a_lost_broker() -> None:
    for present in (0, 1):
        room = Watched(back_at=5.0)
        assert room.seconds_until_believed(present, heard=present) == 5.0 - STEP


def test_those_who_join_a_new_roll_call_first_do_not_stand_for_all() -> None:
    room = Watched()
    room.attendance.unknown()
    assert not room.count(present=2, heard=2)
    assert not room.count(present=3, heard=2)
    assert room.seconds_until_believed(present=3, heard=3) == SHORT_HOLD - STEP


def test_what_was_counted_before_the_broker_was_lost_is_enough_afterwards() -> None:
    room = Watched()
    assert not room.count(present=2, heard=1)
    room.back_at = 5.0
    assert room.count(present=0, heard=2)


def test_who_has_answered_and_left_does_not_stand_for_one_who_is_there() -> None:
    room = Watched()
    assert room.attendance.needs_names(present=2, heard=3)
    left = ("one", "other")
    for _ in range(1000):
        assert not room.count(present=2, heard=3, gone=left)
    assert room.attendance.missing(heard=3) == 1
    assert room.count(present=2, heard=4, gone=left)


def test_a_server_that_leaves_the_roll_call_last_is_not_counted_twice() -> None:
    room = Watched()
    assert not room.count(present=2, heard=2, gone=("leaving",))
    assert room.seconds_until_believed(present=1, heard=2, gone=("leaving",)) <= LEAVING
    assert room.attendance.missing(heard=2) == 0


def test_names_matter_when_answers_could_stand_for_others() -> None:
    attendance = Attendance()
    assert attendance.needs_names(present=9, heard=1)  # at the first count
    attendance.counted(0.0, 9, (), 1, -1.0)
    assert not attendance.needs_names(present=9, heard=1)
    assert attendance.needs_names(present=8, heard=1)
    assert attendance.needs_names(present=9, heard=9)
    assert not attendance.needs_names(present=9, heard=0)
