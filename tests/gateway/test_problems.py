"""The status of each error, and what is said of it."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator

import pytest

import amphora
from amphora import errors
from amphora.errors import AmphoraError
from amphora.gateway.problems import DOCS, ERRORS, Problem, problem_of
from tests.support.processes import ROOT

DOC = ROOT / "docs" / "how-to" / "gateway.rst"
# What no caller ever gets.
INTERNAL = {
    "amphora.broker.model.errors.Refusal",
    "amphora.transport.connections.connecting.NoHost",
}
SECRET = "amqp://guest@10.1.2.3"

# Each error of amphora: its status, whether to try again, and whether its own text is told.
TABLE = [
    (AmphoraError(SECRET), 500, None, False),
    (errors.WrongRequest("add: too many arguments"), 422, None, True),
    (errors.Denied(SECRET), 403, None, False),
    (errors.Cancelled(SECRET), 409, None, False),
    (errors.Overloaded(SECRET), 429, "1", False),
    (errors.RemoteException("KeyError", ("x",), "Traceback: /home/me"), 500, None, True),
    (errors.PoisonRequest(SECRET), 500, None, False),
    (errors.WrongResult("it cannot be sent"), 502, None, True),
    (errors.ServerLost(SECRET), 502, None, False),
    (errors.StreamLost(SECRET, received=3), 502, None, False),
    (errors.ConnectionLost(SECRET), 502, None, False),
    (errors.ConnectionLost(SECRET, executed=False), 503, "1", False),
    (errors.ChannelClosed(404, SECRET), 502, None, False),
    (errors.FrameError(501, SECRET), 502, None, False),
    (errors.MessageError(SECRET), 502, None, False),
    (errors.Busy(SECRET), 503, "1", False),
    (errors.Busy(SECRET, retry_after=2.4), 503, "3", False),
    (errors.NoServer(SECRET), 503, "1", False),
    (errors.Unroutable(SECRET), 503, "1", False),
    (errors.Rejected(SECRET), 503, "1", False),
    (errors.NoResult(SECRET), 504, None, False),
    (errors.TimedOut("it ran for more than 5 s"), 504, None, True),
    (errors.AuthenticationError(SECRET), 500, None, False),
    (errors.AccessRefused(403, SECRET), 500, None, False),
    (errors.Inequivalent(406, SECRET), 500, None, False),
]


def all_errors(root: type[AmphoraError] = AmphoraError) -> Iterator[type[AmphoraError]]:
    """Yield every error that there is in amphora."""
    if root.__module__.startswith("amphora"):
        yield root
    for each in root.__subclasses__():
        yield from all_errors(each)


def test_no_error_is_forgotten() -> None:
    for module in pkgutil.walk_packages(amphora.__path__, "amphora."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    there = set(all_errors())
    assert there >= {errors.Busy, errors.Inequivalent}
    assert {f"{each.__module__}.{each.__name__}" for each in there - set(ERRORS)} == INTERNAL
    assert set(ERRORS) <= there
    assert {type(error) for error, *_ in TABLE} == set(ERRORS)


@pytest.mark.parametrize(
    ("error", "status", "retry_after", "tells"), TABLE, ids=lambda value: type(value).__name__
)
def test_each_error_has_its_status(
    error: AmphoraError, status: int, retry_after: str | None, tells: bool
) -> None:
    problem = problem_of(error, {})
    assert problem.status == status
    assert dict(problem.headers).get("Retry-After") == retry_after
    assert problem.line.startswith(f"{status} ")
    details = json.loads(problem.body())
    name = type(error).__name__
    assert details["type"] == f"{DOCS}{name.lower()}"
    assert (details["title"], details["status"]) == (name, status)
    assert details["executed"] is error.executed
    assert (details["detail"] == str(error)) is tells
    assert SECRET not in problem.body().decode()
    assert "Traceback" not in problem.body().decode()
    # Its type leads to what the docs say of it.
    assert f"_`{name}`" in DOC.read_text()


def test_the_documented_problem_is_one() -> None:
    body = re.search(r"\.\. code-block:: json\n\n((?:   .*\n)+)", DOC.read_text())
    assert body is not None
    assert json.loads(body[1]) == problem_of(errors.Busy(), {}).details()


def test_an_error_of_a_program_has_that_of_its_class() -> None:
    class Full(errors.Busy):
        pass

    problem = problem_of(Full(retry_after=7), {})
    assert (problem.status, problem.kind) == (503, "Busy")
    assert problem.headers == (("Retry-After", "7"),)


def test_an_exception_of_a_function_may_have_a_status_of_its_own() -> None:
    statuses = {"NotFound": 404}
    problem = problem_of(errors.RemoteException("NotFound", ("no order 5",)), statuses)
    assert problem.status == 404
    assert problem.details()["exception"] == "NotFound"
    assert problem.details()["executed"] is True
    assert problem_of(errors.RemoteException("KeyError", ("x",)), statuses).status == 500


def test_a_stream_that_broke_off_says_how_much_had_come() -> None:
    assert problem_of(errors.StreamLost("gone", received=3), {}).details()["received"] == 3


def test_what_is_no_error_of_a_call_says_what_its_status_means() -> None:
    problem = Problem(413, "The body may have at most 5 bytes.")
    assert problem.line == "413 Content Too Large"
    assert problem.details() == {
        "type": "about:blank",
        "title": "Content Too Large",
        "status": 413,
        "detail": "The body may have at most 5 bytes.",
        "executed": False,
    }
