"""The table of a server's functions, without a server."""

from __future__ import annotations

import functools
import inspect
from datetime import date
from typing import Any

import gevent
import pytest

from amphora.errors import WrongRequest
from amphora.rpc.client import proxy
from amphora.rpc.functions.functions import Function, Functions
from amphora.rpc.functions.offering import Offering
from amphora.rpc.functions.parameters import CALL_OPTIONS, Misfit
from amphora.rpc.functions.services import exposed, service_methods
from amphora.rpc.functions.threads import Threads


class Offered(Offering):
    def __init__(self) -> None:
        self.functions = Functions("n", Threads(2))

    def names(self) -> list[str]:
        return [function.name for function in self.functions]


def add(a: int, b: int = 1) -> int:
    return a + b


@pytest.fixture
def offered() -> Offered:
    return Offered()


def test_a_function_is_found_under_its_exact_name_and_no_other(offered: Offered) -> None:
    offered.add_function(add, name="math.add")
    assert offered.functions.find("math.add").call([1], {"b": 2}) == 3
    for name in ("", "add", "math", "math.add.__class__", "Math.add", " math.add", "__init__"):
        with pytest.raises(WrongRequest, match="n has no function"):
            offered.functions.find(name)


def test_an_unknown_name_is_told_in_few_and_printable_letters(offered: Offered) -> None:
    with pytest.raises(WrongRequest) as told:
        offered.functions.find("\x1b[2J" + "x" * 10_000)
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 200


def test_functions_are_in_the_order_in_which_they_were_added(offered: Offered) -> None:
    for name in ("c", "a", "b"):
        offered.add_function(add, name=name)
    assert offered.names() == ["c", "a", "b"]
    assert len(offered.functions) == 3
    assert repr(next(iter(offered.functions))) == "<Function c>"


@pytest.mark.parametrize("name", ["", "x" * 201])
def test_a_name_has_1_to_200_characters(offered: Offered, name: str) -> None:
    with pytest.raises(ValueError, match="must have 1 to 200 characters"):
        offered.functions.add(add, name)
    offered.functions.add(add, "x" * 200)


def test_a_name_is_text(offered: Offered) -> None:
    with pytest.raises(TypeError, match="a function's name must be text, not 5"):
        offered.add_function(add, name=5)  # type: ignore[call-overload]


def test_a_name_in_the_place_of_the_function_is_told(offered: Offered) -> None:
    with pytest.raises(TypeError, match=r"the function comes first, then its name: add_function\("):
        offered.add_function("add", add)  # type: ignore[call-overload]


def test_terms_are_checked_before_the_decorator_is_used(offered: Offered) -> None:
    with pytest.raises(TypeError, match=r"no option 'timout'.*did you mean 'timeout'"):
        offered.add_function(timout=3)  # type: ignore[call-overload]


def test_a_function_that_is_not_there_is_told_what_is(offered: Offered) -> None:
    with pytest.raises(WrongRequest, match=r"^n has no function 'sum'; it has none$"):
        offered.functions.find("sum")
    for number in range(12):
        offered.add_function(add, name=f"f{number:02}")
    with pytest.raises(WrongRequest, match=r"'sum'; it has f00, f01, .*, f09, 2 more$"):
        offered.functions.find("sum")
    with pytest.raises(WrongRequest, match=r"'f0'; did you mean 'f\d\d'\?$"):
        offered.functions.find("f0")


def passed_on(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


class Shop:
    def find(self, name: str) -> str:
        return name

    @passed_on
    def wrapped(self, name: str) -> str:
        return name

    @classmethod
    def of_class(cls, name: str) -> str:
        return name

    @staticmethod
    def plain(name: str) -> str:
        return name

    def c_buy(self) -> None:
        pass


@pytest.mark.parametrize("method", [Shop.find, Shop.wrapped])
def test_a_method_without_its_object_is_refused(offered: Offered, method: Any) -> None:
    name = method.__name__
    with pytest.raises(TypeError, match=rf"^Shop\.{name} is a .* its self .* Shop\(\)\.{name}, or"):
        offered.add_function(method)
    assert offered.names() == []


def test_a_class_in_the_place_of_its_object_is_no_service(offered: Offered) -> None:
    with pytest.raises(TypeError, match=r"add_service\(Shop\(\)\)"):
        offered.add_service(Shop)
    with pytest.raises(ValueError, match=r"begins with 'd_'; prefix=\"\" offers"):
        offered.add_service(Shop(), "d_")


def test_methods_that_have_their_object_or_need_none_are_served(offered: Offered) -> None:
    for method in (Shop().find, Shop().wrapped, Shop.of_class, Shop.plain):
        offered.add_function(method)
        assert offered.functions.find(method.__name__).call(["tea"], {}) == "tea"


def test_a_name_can_be_taken_once(offered: Offered) -> None:
    offered.add_function(add)
    with pytest.raises(ValueError, match="n has a function 'add' already"):
        offered.add_function(lambda: None, name="add")
    assert offered.functions.find("add").call([1], {}) == 2


@pytest.mark.parametrize("what", [lambda: None, type("Called", (), {"__call__": add})(), None, 5])
def test_what_has_no_name_or_cannot_be_called_is_refused(offered: Offered, what: Any) -> None:
    with pytest.raises(TypeError, match=r"has no name of its own|only something that can be calle"):
        offered.functions.add(what)
    assert offered.names() == []


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [([], {}), ([1, 2, 3], {}), ([1], {"c": 1}), ([1], {"a": 1}), (["x"], {}), ([None], {})],
)
def test_arguments_that_do_not_fit_do_not_reach_the_function(
    args: list[Any], kwargs: dict[str, Any]
) -> None:
    called = []

    def f(a: int, b: int = 1) -> None:
        called.append(a)

    with pytest.raises(Misfit, match=r"^f: "):
        Function("f", f).call(args, kwargs)
    assert called == []


def test_an_error_of_the_function_itself_is_no_misfit() -> None:
    def f(a: Any) -> Any:
        return a + 1

    def g() -> Any:
        return f()  # type: ignore[call-arg]

    with pytest.raises(TypeError, match="concatenate"):
        Function("f", f).call(["x"], {})
    with pytest.raises(TypeError, match="missing 1 required"):
        Function("g", g).call([], {})


def test_arguments_without_hints_are_passed_as_they_are_and_counted() -> None:
    def f(a, b=2, *rest, c=3, **more):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN003, ANN202
        return a, b, rest, c, more

    function = Function("f", f)
    thing = object()
    assert function.call([thing], {}) == (thing, 2, (), 3, {})
    assert function.call([1, 2, 3, 4], {"c": 5, "d": 6}) == (1, 2, (3, 4), 5, {"d": 6})
    with pytest.raises(Misfit, match="missing a required argument: 'a'"):
        function.call([], {})


@pytest.mark.parametrize(
    ("args", "kwargs", "told"),
    [
        ([], {}, "missing a required argument: 'a'; it takes (a, b: int = 2, *, c='x')"),
        ([1, 2, 3], {}, "too many positional arguments; it takes (a, b: int = 2, *, c='x')"),
        (
            [1],
            {"d": 1},
            "got an unexpected keyword argument 'd'; it takes (a, b: int = 2, *, c='x')",
        ),
    ],
)
def test_arguments_of_another_number_or_name_are_told_what_the_function_takes(
    args: list[Any], kwargs: dict[str, Any], told: str
) -> None:
    def f(a, b: int = 2, *, c="x") -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        pass

    with pytest.raises(Misfit) as caught:
        Function("f", f).call(args, kwargs)
    assert str(caught.value) == f"f: {told}"


def test_a_function_without_parameters_says_so() -> None:
    with pytest.raises(Misfit, match=r"^f: too many positional arguments; it takes no arguments$"):
        Function("f", lambda: None).call([1], {})


def test_an_option_among_the_arguments_is_told_where_it_goes() -> None:
    with pytest.raises(
        Misfit, match=r"goes before the function: client\.call\(timeout=\.\.\.\)\.f\("
    ):
        Function("f", lambda a: a).call([1], {"timeout": 3})
    with pytest.raises(Misfit, match=r"client\.call\(headers=\.\.\., timeout=\.\.\.\)\.f\("):
        Function("f", lambda a: a).call([1], {"timeout": 3, "headers": {}})
    # One of that name is the function's own.
    with pytest.raises(Misfit, match=r"it takes \(a, timeout\)$"):
        Function("f", lambda a, timeout: a).call([], {"timeout": 3})


def test_the_options_that_are_told_apart_are_those_of_the_calls() -> None:
    ways = (proxy.RepeatOptions, proxy.StreamOptions, proxy.GatherOptions)
    assert frozenset().union(*(way.__optional_keys__ for way in ways)) == CALL_OPTIONS


def test_parameters_without_an_end_are_cut() -> None:
    def f(a: Any, b: Any = "x" * 10_000) -> None:
        pass

    wide = inspect.Signature(
        [inspect.Parameter(f"n{n}", inspect.Parameter.KEYWORD_ONLY) for n in range(1000)]
    )
    f.__signature__ = wide  # type: ignore[attr-defined]
    with pytest.raises(Misfit) as caught:
        Function("f", f).call([], {})
    assert len(str(caught.value)) < 1000


def test_an_argument_named_by_keyword_alone_is_asked_for() -> None:
    def f(*, a):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return a

    assert Function("f", f).call([], {"a": 1}) == 1
    with pytest.raises(Misfit, match="missing a required"):
        Function("f", f).call([], {})


def test_arguments_become_what_their_hints_say() -> None:
    def f(day: date, *more: date, **named: date) -> list[Any]:
        return [day, *more, *named.values()]

    days = Function("f", f).call(["2026-11-21", "2026-11-22"], {"last": "2026-11-23"})
    assert days == [date(2026, 11, 21), date(2026, 11, 22), date(2026, 11, 23)]
    with pytest.raises(Misfit, match="argument 'day'"):
        Function("f", f).call(["yesterday"], {})


# -- in threads -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "2", None])
def test_there_is_at_least_one_thread(size: Any) -> None:
    with pytest.raises(ValueError, match="threads must be a number of at least 1"):
        Threads(size)


def test_a_function_in_a_thread_returns_raises_and_lets_others_run(offered: Offered) -> None:
    hub = gevent.get_hub()

    def f(fails: bool) -> bool:
        if fails:
            raise SystemExit(3)
        return gevent.get_hub() is hub

    offered.add_function(f, threadpool=True)
    function = offered.functions.find("f")
    ran: list[str] = []
    other = gevent.spawn(ran.append, "other")
    assert function.call([False], {}) is False
    assert ran == ["other"]
    with pytest.raises(SystemExit):
        function.call([True], {})
    other.get()
    offered.functions.threads.close()
    # They are made again when they are needed.
    assert function.call([False], {}) is False
    offered.functions.threads.close()


# -- methods ----------------------------------------------------------------------------------


class Service:
    setting = add

    @exposed
    def marked(self) -> str:
        return "marked"

    def c_named(self) -> str:
        return "named"

    def c_(self) -> str:
        return "nothing is left of its name"

    @classmethod
    def c_made(cls) -> str:
        return cls.__name__

    @property
    def c_broken(self) -> str:
        raise AssertionError("looking for methods runs nothing")


def test_methods_are_found_by_prefix_or_mark() -> None:
    by_prefix = dict(service_methods(Service(), "c_"))
    assert sorted(by_prefix) == ["made", "named"]
    assert by_prefix["made"]() == "Service"
    assert list(dict(service_methods(Service(), ""))) == ["marked"]
    assert list(service_methods(Service(), "_")) == []
    assert list(service_methods(Service(), "x_")) == []


def test_a_mark_is_not_needed_with_a_prefix() -> None:
    assert sorted(dict(service_methods(Service(), "m"))) == ["arked"]


def test_a_service_is_offered_as_a_whole_under_its_name(offered: Offered) -> None:
    offered.add_service(Service(), name="s")
    assert sorted(offered.names()) == ["s.made", "s.named"]
    assert offered.functions.find("s.named").call([], {}) == "named"
    with pytest.raises(ValueError, match="has no method whose name begins with 'd_'"):
        offered.add_service(Service(), prefix="d_")
