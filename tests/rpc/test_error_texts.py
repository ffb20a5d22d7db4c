"""What an exception says reaches the caller, whatever its class and its arguments are."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn

import gevent
import msgspec
import pytest

from amphora import AmqpRpcFanoutClient, AmqpRpcFanoutServer, RemoteException
from amphora.errors import text_of
from amphora.rpc.contract.bodies import (
    MAX_ERROR_TEXT,
    ErrorBody,
    Response,
    exception_of,
    raised_body,
)
from amphora.rpc.contract.serializers import JSON, MSGPACK
from tests.support.rpc import MakeClient, MakeServer


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        self.code = code

    def __str__(self) -> str:
        return f"order {self.code} is sold out"


class Template(Exception):
    def __str__(self) -> str:
        return f"user {self.args[0]} has no rights"


@dataclass
class Owner:
    name: str


class Says(Exception):
    """Its text is what the test makes."""

    def __init__(self, say: Callable[[], Any], *args: Any) -> None:
        super().__init__(*args)
        self.say = say

    def __str__(self) -> str:
        return self.say()  # type: ignore[no-any-return]


class OddText(str):
    """A text of a user's that is not to be trusted."""

    def __getitem__(self, key: Any) -> NoReturn:
        raise RuntimeError("not to be cut")

    def encode(self, *args: Any) -> NoReturn:
        raise RuntimeError("not to be sent")


def raises(error: BaseException) -> Callable[[], NoReturn]:
    def say() -> NoReturn:
        raise error

    return say


def opened() -> OSError:
    try:
        open("/no/such/file")  # noqa: SIM115 (it is not there)
    except OSError as error:
        return error
    raise AssertionError


def with_notes(error: Exception, *notes: str) -> Exception:
    for note in notes:
        error.add_note(note)
    return error


def arrived(error: BaseException, *, msgpack: bool = False) -> RemoteException:
    """Return what the caller gets, over real bytes."""
    serializer = MSGPACK if msgpack else JSON
    body = serializer.decode_response(serializer.encode(Response(exception=raised_body(error))))
    assert isinstance(body.exception, ErrorBody)
    told = exception_of(body.exception)
    assert isinstance(told, RemoteException)
    return told


SAYINGS: list[tuple[Exception, str]] = [
    (KeywordOnly(code=7), "KeywordOnly: order 7 is sold out"),
    (Template("bob"), "Template: user bob has no rights"),
    (opened(), "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'"),
    (
        UnicodeDecodeError("ascii", b"a\xff", 1, 2, "not in range"),
        "UnicodeDecodeError: 'ascii' codec can't decode byte 0xff in position 1: not in range",
    ),
    # What the arguments tell is told as it always was.
    (ValueError("bad"), "ValueError: bad"),
    (KeyError("x"), "KeyError: x"),
    (KeyError(("a", 1)), "KeyError: ('a', 1)"),
    (LookupError("no", 1, None), "LookupError: ('no', 1, None)"),
    (StopIteration(), "StopIteration"),
    (ValueError(""), "ValueError"),
    # Arguments of other classes arrive as something else than they were.
    (ValueError(Decimal("1.50"), b"ab"), "ValueError: (Decimal('1.50'), b'ab')"),
    (ValueError(Owner("Ann")), "ValueError: Owner(name='Ann')"),
    # Classes that do what they like.
    (Says(raises(RuntimeError("no")), "useful"), "Says: useful"),
    (Says(raises(SystemExit(3)), "useful"), "Says: useful"),
    (Says(lambda: 5, "useful"), "Says: useful"),
    (Says(lambda: OddText("odd")), "Says: odd"),
    (Says(lambda: "a\ud800b"), "Says: a\\ud800b"),
    (Says(lambda: "two\nlines"), "Says: two\nlines"),
    (with_notes(ValueError("bad"), "in row 3", "of a.csv"), "ValueError: bad\nin row 3\nof a.csv"),
]


@pytest.mark.parametrize("msgpack", [False, True], ids=["json", "msgpack"])
@pytest.mark.parametrize(("error", "text"), SAYINGS, ids=[text[:30] for _, text in SAYINGS])
def test_what_an_exception_says_arrives(error: Exception, text: str, msgpack: bool) -> None:
    assert str(arrived(error, msgpack=msgpack)) == text


def test_what_is_in_a_group_of_exceptions_is_told() -> None:
    group = ExceptionGroup(
        "two", [ValueError("a"), ExceptionGroup("inner", [opened()]), StopIteration()]
    )

    assert text_of(group) == (
        "two (3 sub-exceptions): ValueError: a; ExceptionGroup: (inner (1 sub-exception):"
        " FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'); StopIteration"
    )


def test_a_group_without_an_end_is_told_as_far_as_its_text_may_go() -> None:
    group: Exception = ValueError("x" * 50)
    for _ in range(100):
        group = ExceptionGroup("g", [group] * 20)

    assert len(text_of(group)) <= MAX_ERROR_TEXT


def test_a_text_that_is_very_long_is_cut() -> None:
    assert str(arrived(Says(lambda: "x" * 10_000_000))) == "Says: " + "x" * MAX_ERROR_TEXT


def test_a_text_that_the_arguments_tell_does_not_travel_twice() -> None:
    for error in (ValueError("bad"), KeyError("x"), ValueError(1, [2.5]), ValueError("y" * 9000)):
        assert raised_body(error).text is msgspec.UNSET
    assert b'"text"' not in msgspec.json.encode(raised_body(ValueError("bad")))


def test_the_traceback_of_a_call_that_failed_in_its_turn_is_no_note_of_the_answer() -> None:
    inner = RemoteException("ValueError", ("bad",), "Traceback: secret")

    assert str(arrived(inner)) == "RemoteException: ValueError: bad"


def test_an_answer_without_a_text_is_read_and_one_with_it_has_all_that_older_clients_read() -> None:
    older = msgspec.json.decode(b'{"type": "OSError", "args": [2, "gone"]}', type=ErrorBody)
    assert str(exception_of(older)) == "OSError: (2, 'gone')"

    sent = msgspec.json.decode(JSON.encode(Response(exception=raised_body(opened()))))
    assert sent["exception"]["type"] == "FileNotFoundError"
    assert sent["exception"]["args"] == [2, "No such file or directory"]


def test_a_copy_of_a_remote_exception_has_all_of_it() -> None:
    error = RemoteException("OSError", (2, "gone"), "Traceback ...", "[Errno 2] gone: 'a'")
    error.add_note("while the shop opened")
    for again in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert str(again) == "OSError: [Errno 2] gone: 'a'"
        assert repr(again) == repr(error)
        assert again.args == (2, "gone")
        assert again.text == error.text
        assert again.__notes__ == ["The remote traceback:\nTraceback ...", "while the shop opened"]
        again.add_note("more")
    assert len(error.__notes__) == 2


def test_callers_are_told_with_and_without_tracebacks(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    def fail(code: int) -> None:
        raise KeywordOnly(code=code)

    make_server(fail, tracebacks=False)
    with pytest.raises(RemoteException, match=r"^KeywordOnly: order 7 is sold out$") as caught:
        make_client().call.fail(7)
    assert caught.value.args == ()
    assert caught.value.traceback == ""


def test_whoever_asks_all_servers_is_told(make_server: MakeServer, make_client: MakeClient) -> None:
    def fail() -> None:
        raise KeywordOnly(code=8)

    server = make_server(fail, kind=AmqpRpcFanoutServer)
    with gevent.Timeout(20):
        while not server.ready:
            gevent.sleep(0.01)
    (reply,) = make_client(AmqpRpcFanoutClient).gather.fail()
    assert str(reply.error) == "KeywordOnly: order 8 is sold out"


@pytest.mark.parametrize(
    "say",
    [lambda: gevent.sleep(30), raises(gevent.Timeout()), raises(BaseException("odd"))],
    ids=["waits", "times out", "raises what is no Exception"],
)
def test_a_class_that_will_not_say_what_happened_costs_its_text_alone(
    make_server: MakeServer, make_client: MakeClient, say: Callable[[], Any]
) -> None:
    runs = []

    def fail() -> None:
        runs.append(1)
        raise Says(say, "useful")

    make_server(fail, tracebacks=False)
    with pytest.raises(RemoteException, match=r"^Says"):
        make_client().call.fail()
    assert runs == [1]
