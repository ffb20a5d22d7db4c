"""`amphora send`: request documents for arpc's workers and for their management."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import gevent
import pytest

from amphora.arpc import mq
from amphora.cli.failures import Exit
from tests.cli.conftest import Amphora
from tests.support.brokers import Broker
from tests.support.waiting import wait_until

ADD = '{"c": "add", "x": 10, "y": 20}'

StartWorker = Callable[[], mq.JSONServer]


class Service:
    def c_add(self, req: mq.Document) -> mq.Document:
        return {"res": req["x"] + req["y"]}

    def c_sleep(self, req: mq.Document) -> None:
        gevent.sleep(req["seconds"])


@pytest.fixture
def start_worker(url: str, namespace: str) -> Iterator[StartWorker]:
    """Start workers of arpc's and wait until they serve; they are stopped after the test."""
    amqp = mq.AMQPOperations(url=url)
    made: list[mq.JSONServer] = []

    def start() -> mq.JSONServer:
        worker = mq.make_json_server(amqp, namespace, Service())
        made.append(worker)
        worker.server.serve()
        wait_until(lambda: worker.server.ready)
        return worker

    yield start
    for worker in made:
        worker.stop()
    amqp.close()


def test_the_answer_is_printed(amphora: Amphora, start_worker: StartWorker, namespace: str) -> None:
    start_worker()
    outcome = amphora("send", namespace, ADD)
    assert (outcome.code, outcome.out, outcome.err) == (0, '{\n  "res": 30\n}\n', "")
    assert amphora("send", namespace, ADD, "--json").json == {"result": {"res": 30}}


def test_the_management_of_all_workers_or_of_one_is_asked(
    amphora: Amphora, start_worker: StartWorker, namespace: str
) -> None:
    workers = {start_worker().wid for _ in range(3)}
    ping = ['{"c": "ping"}', "--json"]
    outcome = amphora("send", f"mgt.{namespace}", *ping)
    assert outcome.code == Exit.DONE
    assert {line["result"]["wid"] for line in outcome.json_lines} == workers
    one = min(workers)
    assert amphora("send", f"mgt.{one}", *ping).json["result"]["wid"] == one


def test_an_exception_of_the_service_is_told(
    amphora: Amphora, start_worker: StartWorker, namespace: str
) -> None:
    start_worker()
    outcome = amphora("send", namespace, '{"c": "add"}')
    assert (outcome.code, outcome.out) == (Exit.FAILED, "")
    assert outcome.err == "amphora: error: the function raised KeyError: x\n"
    outcome = amphora("send", namespace, '{"c": "add"}', "--traceback")
    assert 'return {"res": req["x"] + req["y"]}' in outcome.err
    assert outcome.err.endswith("\namphora: error: the function raised KeyError: x\n")


def test_an_answer_that_does_not_come_in_time_is_given_up(
    amphora: Amphora, start_worker: StartWorker, namespace: str
) -> None:
    start_worker()
    outcome = amphora("send", namespace, '{"c": "sleep", "seconds": 1}', "--timeout", 0.2)
    assert (outcome.code, outcome.out) == (Exit.NO_ANSWER, "")
    assert "within 0.2 s" in outcome.err


def test_what_no_worker_offers_is_refused(
    amphora: Amphora, start_worker: StartWorker, namespace: str
) -> None:
    start_worker()
    for key, document in ((namespace, '{"c": "nope"}'), (f"mgt.{namespace}", '{"c": "kill"}')):
        outcome = amphora("send", key, document)
        assert (outcome.code, outcome.out) == (Exit.REFUSED, "")
        assert "has no function" in outcome.err


def test_nobody_there_is_told_at_once_and_nothing_is_left_on_the_broker(
    amphora: Amphora, broker: Broker, namespace: str
) -> None:
    for key in (namespace, f"mgt.{namespace}"):
        outcome = amphora("send", key, ADD)
        assert (outcome.code, outcome.out) == (Exit.NOBODY, "")
        assert f"there is no namespace '{namespace}'" in outcome.err
    worker = f"arpc-{namespace}-4f741449e0"
    outcome = amphora("send", f"mgt.{worker}", '{"c": "ping"}', "--timeout", 20)
    assert (outcome.code, outcome.out) == (Exit.NOBODY, "")
    assert f"there is no worker '{worker}'" in outcome.err
    assert not broker.queue_exists(f"rpc_{namespace}_request")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "Missing argument 'ROUTING_KEY'"),
        (["example"], "Missing argument 'JSON'"),
        (["example", "{"], "that is not JSON: "),
        (["example", "[" * 5000], "that is not JSON: "),
        (["example", '{"x": 1}'], 'the name of a method in "c"'),
        (["example", "3"], 'the name of a method in "c"'),
        (["mgt.example", "[]"], 'the name of a method in "c"'),
        (["ex ample", ADD], "the namespace 'ex ample' must be"),
        (["mgt.", ADD], "the namespace '' must be"),
    ],
)
def test_wrong_usage_is_explained(amphora: Amphora, words: list[str], complaint: str) -> None:
    outcome = amphora("send", *words)
    assert (outcome.code, outcome.out) == (Exit.USAGE, "")
    assert re.search(rf"^Error: .*{re.escape(complaint)}", outcome.err, re.MULTILINE)
