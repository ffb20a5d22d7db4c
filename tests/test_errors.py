"""Errors are part of the interface."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import amphora
from amphora import AmqpRpcClient, AmqpRpcServer, errors
from amphora.errors import (
    AmphoraError,
    ChannelClosed,
    FrameError,
    RemoteException,
    printable,
    printable_lines,
    repr_of,
)
from amphora.wire.codes import ReplyCode

EXAMPLES: list[Exception] = [
    FrameError(501, "unknown frame type 72"),
    ChannelClosed(404, "NOT_FOUND - no queue 'q'"),
    ChannelClosed(406, "PRECONDITION_FAILED").during("<Topology> cannot be set up"),
    errors.AccessRefused(403, "ACCESS_REFUSED - access", "user 'bob' needs it", "write"),
    errors.Inequivalent(406, "PRECONDITION_FAILED - arg", "delete queue 'q'", "x-queue-type"),
    RemoteException("ValueError", ("bad", 3), "Traceback ..."),
    errors.NoResult("no result within 60 s", executed=None),
    errors.ConnectionLost("the broker hung up", executed=False),
    errors.IgnoreRequest("not mine"),
    errors.Busy("text", retry_after=2.0),
    *(
        cls("text")
        for cls in (
            AmphoraError,
            errors.AuthenticationError,
            errors.Cancelled,
            errors.Denied,
            errors.MessageError,
            errors.NoServer,
            errors.Overloaded,
            errors.PoisonRequest,
            errors.Rejected,
            errors.ServerLost,
            errors.StreamLost,
            errors.TimedOut,
            errors.Unroutable,
            errors.WrongRequest,
            errors.WrongResult,
        )
    ),
]


def test_every_error_has_the_one_root_except_the_one_that_is_none() -> None:
    classes = [getattr(errors, name) for name in errors.__all__ if name != "printable"]

    assert {type(error) for error in EXAMPLES} == set(classes)
    assert [cls for cls in classes if not issubclass(cls, AmphoraError)] == [errors.IgnoreRequest]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("how", ["copied", "pickled"])
def test_an_error_can_be_handed_to_another_process(error: Exception, how: str) -> None:
    again = copy.copy(error) if how == "copied" else pickle.loads(pickle.dumps(error))

    assert type(again) is type(error)
    assert (str(again), again.args) == (str(error), error.args)
    for name in (
        "executed",
        "code",
        "text",
        "advice",
        "permission",
        "setting",
        "error_type",
        "traceback",
    ):
        assert getattr(again, name, "none") == getattr(error, name, "none")


def test_an_error_says_whether_the_handler_ran_as_far_as_that_is_known() -> None:
    assert errors.Unroutable("").executed is False
    assert errors.NoServer("").executed is False
    assert errors.RemoteException("E").executed is True
    assert errors.NoResult("").executed is None
    assert errors.NoResult("", executed=False).executed is False
    assert errors.NoResult.executed is None


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RemoteException("TypeError", ("unsupported operand",)), "TypeError: unsupported operand"),
        (RemoteException("KeyError", ("a", 1)), "KeyError: ('a', 1)"),
        (RemoteException("StopIteration"), "StopIteration"),
        (ChannelClosed(406, "no\nway"), r"the broker closed the channel: 406 no\nway"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_one_clear_sentence(error: Exception, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain text", "plain text"),
        ("größe ✓", "größe ✓"),
        ("line\nend\r\x00", r"line\nend\r\x00"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("right \u202e left", r"right \u202e left"),
        ("surrogate \udcff", r"surrogate \udcff"),
        (b"bytes \xff\n", r"bytes \xff\n"),
        (bytearray(b"bytes"), "bytes"),
        (404, "404"),
        (None, "None"),
    ],
    ids=repr,
)
def test_text_from_outside_is_printed_without_its_powers(value: object, text: str) -> None:
    assert printable(value) == text


@given(value=st.text() | st.binary() | st.integers(), limit=st.integers(3, 300))
def test_what_is_printed_is_printable_and_within_its_limit(value: object, limit: int) -> None:
    text = printable(value, limit)

    assert text.isprintable()
    assert len(text) <= limit


def test_long_text_is_cut_where_it_can_be_seen() -> None:
    assert printable("x" * 200) == "x" * 200
    assert printable("x" * 201) == "x" * 197 + "..."
    assert printable(b"x" * 10_000_000, 10) == "xxxxxxx..."
    assert printable("\n" * 150) == r"\n" * 98 + "\\..."


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("half a minute", "'half a minute'"),
        (b"\x1b[31m", r"b'\x1b[31m'"),
        ("amqp://shop:s3cr@t@broker/", "'amqp://***@broker/'"),
        (["amqps://shop:s3cret@a,b/"], "['amqps://***@a,b/']"),
        ("amqp://shop:s3 c/ret@broker/", "'amqp://***@broker/'"),
        # The time for this would grow with the square of its length.
        ("http://shop.example," * 200_000, "'" + ("http://shop.example," * 5)[:96] + "..."),
        ("x" * 101, "'" + "x" * 96 + "..."),
        (Unshowable(), "<a Unshowable whose repr fails>"),
    ],
    ids=["text", "escapes", "login", "inside", "spaces", "many", "long", "failing"],
)
def test_what_a_program_has_given_is_shown_without_its_login(value: object, text: str) -> None:
    assert repr_of(value) == text


@pytest.mark.parametrize(
    "wrong",
    [
        lambda value: AmqpRpcClient("shop", uuid=value),
        lambda value: AmqpRpcClient("shop", timeout=value),
        lambda value: AmqpRpcClient("shop", heartbeat=value),
        lambda value: AmqpRpcClient("shop", durable=value),
        lambda value: AmqpRpcClient("shop", serializer=value),
        lambda value: AmqpRpcServer("shop", queue_type=value),
        lambda value: AmqpRpcServer("shop", concurrency=value),
        lambda value: AmqpRpcServer("shop", max_wait=value),
        lambda value: AmqpRpcClient("shop").call(timeout=value).find(),
        lambda value: amphora.deadline(value).__enter__(),
        AmqpRpcServer,
    ],
)
def test_a_url_in_the_wrong_place_is_refused_without_its_password(
    wrong: Callable[[Any], object],
) -> None:
    with pytest.raises(ValueError, match=r"amqp://\*\*\*@broker/|url=") as raised:
        wrong("amqp://shop:s3cret@broker/")

    assert "s3cret" not in str(raised.value)


def test_lines_from_outside_keep_their_ends_and_lose_their_power() -> None:
    assert printable_lines("a\tb\nc") == "a\tb\nc"
    assert printable_lines("\x1b[2J\x07\r\x9b1m") == "\\x1b[2J\\x07\\r\\x9b1m"
    assert printable_lines("x" * 5000) == "x" * 5000


def test_the_codes_of_what_passes_by_itself_are_those_of_the_wire() -> None:
    passing = {ReplyCode.NOT_FOUND, ReplyCode.RESOURCE_LOCKED, ReplyCode.INTERNAL_ERROR}
    assert passing == errors.PASSING_CODES


def test_an_error_comes_again_as_what_it_is() -> None:
    closed = ChannelClosed(404, "NOT_FOUND - no queue 'q'").during("looking")
    again = closed.again(executed=False)
    assert type(again) is ChannelClosed
    assert (again.code, str(again), again.__cause__) == (404, str(closed), None)
    assert (again.executed, closed.executed) == (False, None)
    assert closed.again().executed is None
    refused = errors.AuthenticationError("no").again(executed=None)
    assert refused.executed is None


def test_a_connection_that_an_error_has_ended_is_lost_because_of_it() -> None:
    lost, frame = errors.ConnectionLost("cut"), FrameError(501, "not AMQP")
    lost.__cause__ = reset = ConnectionResetError("by peer")
    again = errors.ConnectionLost.because(lost, executed=False)
    assert (str(again), again.__cause__, again.executed) == ("cut", reset, False)
    other = errors.ConnectionLost.because(frame)
    assert type(other) is errors.ConnectionLost
    assert (str(other), other.__cause__, other.executed) == ("not AMQP", frame, None)
