"""A Flask application under gunicorn, with and without `--preload`, calls a service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.examples.conftest import on_one_broker
from tests.support.brokers import Broker
from tests.support.http import Answer, ask
from tests.support.ports import claim_ports
from tests.support.processes import ROOT, PythonProcess
from tests.support.waiting import wait_until

pytestmark = on_one_broker

EXAMPLE = ROOT / "examples" / "gunicorn_flask"
PROGRAMS = ROOT / "tests" / "examples" / "programs"
ITEMS = {"tea": 3, "coffee": 0}


class Gunicorn:
    """gunicorn, which serves."""

    def __init__(self, url: str, home: Path, application: str, *options: str) -> None:
        ((self.port, self._claim),) = claim_ports(1).items()
        place = ("--chdir", str(EXAMPLE), "--pythonpath", str(PROGRAMS))
        settings = ("--config", str(EXAMPLE / "gunicorn.conf.py"))
        bind = ("--bind", f"127.0.0.1:{self.port}")
        self.process = PythonProcess(
            *("-m", "gunicorn", *place, *settings, *bind, *options, application),
            ready="Booting worker",
            # Newer ones make a control socket at home.
            env={"AMQP_URL": url, "HOME": str(home), "XDG_RUNTIME_DIR": str(home)},
        )

    def __enter__(self) -> Gunicorn:
        with ExitStack() as begun:
            begun.enter_context(self._claim)
            begun.enter_context(self.process)
            wait_until(lambda: len(self.workers()) == 2)
            self._begun = begun.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._begun.__exit__(*error)

    def ask_for(self, item: str) -> Answer:
        return ask(self.port, f"/stock/{item}")

    def workers(self) -> set[int]:
        """Return the pids that gunicorn says it has started."""
        started = [line for line in self.process.lines if "Booting worker" in line]
        return {int(line.rpartition(" ")[2]) for line in started}


@pytest.fixture
def url(broker_url: str) -> Iterator[str]:
    """The broker's URL; what the example keeps there is removed in the end."""
    yield broker_url
    Broker(broker_url).forget("stock")


@pytest.fixture
def service(url: str) -> Iterator[PythonProcess]:
    """The service, which serves."""
    with PythonProcess(
        EXAMPLE / "service.py", ready="serving stock", env={"AMQP_URL": url}
    ) as process:
        yield process


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("application", "options"),
    [("app:app", []), ("app:app", ["--preload"]), ("warm_app:app", ["--preload"])],
    ids=["each worker loads it", "preloaded", "preloaded and used before the fork"],
)
def test_every_worker_gets_its_own_answers(
    url: str, tmp_path: Path, application: str, options: list[str]
) -> None:
    with Gunicorn(url, tmp_path, application, *options) as gunicorn:
        answered: set[Any] = set()
        with gevent.Timeout(80):
            # The kernel decides who takes a connection.
            while answered != gunicorn.workers():
                asked = ["tea", "coffee"] * 10
                answers = [gevent.spawn(gunicorn.ask_for, item) for item in asked]
                for item, answer in zip(asked, answers, strict=True):
                    told = answer.get().json
                    assert (told["item"], told["left"]) == (item, ITEMS[item])
                    answered.add(told["worker"])
        gunicorn.process.terminate()
        assert gunicorn.process.wait() == 0


@pytest.mark.usefixtures("service")
def test_what_the_service_does_not_know_is_not_found(url: str, tmp_path: Path) -> None:
    with Gunicorn(url, tmp_path, "app:app") as gunicorn:
        answer = gunicorn.ask_for("gold")
        assert (answer.status, answer.json) == (404, {"error": "there is no such thing"})
