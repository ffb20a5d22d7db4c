"""`client.call.f(x)`: what becomes of an attribute path, before anything is sent."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from amphora.rpc.client.proxy import MOST_KEPT, CallWay, GatherWay, SpreadWay, Way

Sent = tuple[str, tuple[Any, ...], dict[str, Any], dict[str, Any]]


def send(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]) -> Sent:
    return name, args, kwargs, options


@pytest.fixture
def call() -> CallWay[Sent]:
    return CallWay("call", send)


def test_a_path_ends_in_a_call(call: CallWay[Sent]) -> None:
    assert call.f(1, b=2) == ("f", (1,), {"b": 2}, {})
    assert call.a.b.c() == ("a.b.c", (), {}, {})


def test_options_come_first_and_go_with_each_call(call: CallWay[Sent]) -> None:
    soon = call(timeout=5.0, routing_key="Alice")
    options = {"timeout": 5.0, "routing_key": "Alice"}
    assert soon.f(1) == ("f", (1,), {}, options)
    assert soon.a.b() == ("a.b", (), {}, options)
    assert call.f() == ("f", (), {}, {})


def test_a_function_that_is_named_in_an_option_may_be_the_beginning_of_a_path(
    call: CallWay[Sent],
) -> None:
    named = {"function_name": "a b"}
    assert call(function_name="a b")(1) == ("a b", (1,), {}, named)
    assert call(function_name="a b").c(1) == ("a b.c", (1,), {}, named)
    assert call(function_name="")() == ("", (), {}, {"function_name": ""})


def test_arguments_of_a_function_may_have_any_name(call: CallWay[Sent]) -> None:
    assert call.f(self=1, name=2, timeout=3) == ("f", (), {"self": 1, "name": 2, "timeout": 3}, {})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (CallWay, {"function_name", "timeout", "wait_publish", "routing_key", "wait_for_server"}),
        (SpreadWay, {"function_name", "timeout", "wait_publish"}),
        (GatherWay, {"function_name", "timeout"}),
    ],
)
def test_each_way_takes_its_own_options(kind: Any, options: set[str]) -> None:
    way = kind("way", send)
    some = ("function_name", "timeout", "wait_publish", "routing_key", "wait_for_server")
    for option in (*some, "time_out"):
        value: Any = {"function_name": "f", "wait_publish": True}.get(option, 5)
        if option in options:
            assert way(**{option: value}).f()[3] == {option: value}
        else:
            with pytest.raises(TypeError, match=f"way has no option '{option}'; it has "):
                way(**{option: value})


def test_what_makes_no_sense_is_explained(call: Any) -> None:
    with pytest.raises(TypeError, match=r"to call a function write call\.name\(\.\.\.\)"):
        call("f", 1)
    with pytest.raises(TypeError, match=r"call\(\.\.\.\) needs a function"):
        call(timeout=5)()
    with pytest.raises(TypeError, match="function_name must be text, not 5"):
        call(function_name=5)
    with pytest.raises(TypeError, match=r"^<call a\.b> was not called: put parentheses behind it$"):
        list(call.a.b)


def test_steps_are_kept_and_there_is_an_end_to_it(call: CallWay[Sent]) -> None:
    assert call.f is call.f
    assert call.a.b is call.a.b
    for number in range(2 * MOST_KEPT):
        getattr(call, f"f{number}")
    assert len(vars(call)) <= MOST_KEPT
    assert getattr(call, f"f{2 * MOST_KEPT}")(1)[0] == f"f{2 * MOST_KEPT}"


def test_nothing_of_pythons_own_is_taken_for_a_function(call: CallWay[Sent]) -> None:
    for thing in (call, call.f):
        with pytest.raises(AttributeError, match="__wrapped__"):
            thing.__wrapped__  # noqa: B018
    other: Way[Sent] = copy.copy(call)
    assert other.f(1) == call.f(1)


def test_they_say_what_they_are(call: CallWay[Sent]) -> None:
    assert repr(call) == "<call ...>"
    assert repr(call(timeout=1.0)) == "<call ...>"
    assert repr(call.a.b) == "<call a.b>"
