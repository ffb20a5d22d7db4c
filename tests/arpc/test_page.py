"""The programs and commands of arpc's page, with the import changed and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from amphora import ManagementClient
from tests.support.brokers import Broker
from tests.support.processes import PythonProcess
from tests.support.slowness import without_slowness
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples" / "arpc"
LINE = re.compile(r"msg_sender \d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|ERROR) (.*)")
WID = r"arpc-example-[0-9a-f]{10}"

Send = Callable[[str, str], list[str]]

# `amphora.arpc.mq` is tested on both brokers; here are programs as users have them.
on_rabbitmq = pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)


@pytest.fixture
def workers(broker: Broker) -> Iterator[Callable[[int], None]]:
    """Start workers of the page and wait for them.  Their queue is removed at the end."""
    with ExitStack() as running, ManagementClient(url=broker.url) as management:

        def start(number: int) -> None:
            for _ in range(number):
                worker = EXAMPLES / "example_worker.py"
                running.enter_context(PythonProcess(worker, env={"AMQP_URL": broker.url}))
            wait_until(lambda: management.count_workers("example") == number)

        yield start
    broker.forget("example")


@pytest.fixture
def send(broker: Broker) -> Send:
    """Type `arpc_msg_sender KEY JSON`; return what follows the time on each line it prints."""

    def type_it(key: str, document: str) -> list[str]:
        command = PythonProcess(
            "-m", "amphora.arpc.sender", key, document, env={"AMQP_URL": broker.url}
        )
        with command:
            command.wait()
        found = [LINE.fullmatch(line) for line in without_slowness(command.lines)]
        assert all(found), command.lines
        return [match[2] for match in found if match is not None]

    return type_it


@on_rabbitmq
def test_the_client_of_the_page_gets_its_sum(
    workers: Callable[[int], None], broker: Broker
) -> None:
    workers(1)
    client = PythonProcess(EXAMPLES / "example_client.py", env={"AMQP_URL": broker.url})
    with client:
        assert client.wait() == 0
    assert client.printed == ["{'res': 12}", "[{'res': 0}, {'res': 2}, {'res': 4}]"]


@on_rabbitmq
def test_the_sender_prints_the_result(workers: Callable[[int], None], send: Send) -> None:
    workers(1)
    assert send("example", '{"c":"add", "x":10, "y":20}') == [
        "Message sent, waiting for response",
        "Result: <{'res': 30}>",
    ]


@on_rabbitmq
def test_a_ping_finds_every_worker(workers: Callable[[int], None], send: Send) -> None:
    workers(3)
    first, *results = send("mgt.example", '{"c":"ping"}')
    assert first == "Message sent, waiting for response"
    assert len(results) == 3
    assert len(set(results)) == 3
    for result in results:
        assert re.fullmatch(rf"Result: <{{'host': '.+', 'wid': '{WID}', 'pid': \d+}}>", result)


@on_rabbitmq
def test_stats_have_arpcs_shape(workers: Callable[[int], None], send: Send) -> None:
    workers(1)
    for _ in range(3):
        send("example", '{"c":"add", "x":1, "y":2}')
    [_, result] = send("mgt.example", '{"c":"stats"}')
    assert re.fullmatch(
        rf"Result: <{{'wid': '{WID}', 'pid': \d+, 'host': '.+',"
        r" 'waittimes': \['\d+\.\d{4}', '\d+\.\d{4}'\], 'processed': 3, 'exceptions': 0}>",
        result,
    )


@on_rabbitmq
def test_one_worker_is_reached_by_its_id(workers: Callable[[int], None], send: Send) -> None:
    workers(2)
    _, first, _ = send("mgt.example", '{"c":"ping"}')
    found = re.search(WID, first)
    assert found is not None
    _, *results = send(f"mgt.{found[0]}", '{"c":"ping"}')
    assert results == [first]


@on_rabbitmq
def test_kill_and_eval_are_off(workers: Callable[[int], None], send: Send) -> None:
    workers(1)
    for document in ('{"c":"kill"}', '{"c":"eval", "expr":"1 + 1"}'):
        _, answer = send("mgt.example", document)
        assert "has no function" in answer


@on_rabbitmq
def test_the_exceptions_name_and_traceback_reach_the_caller(
    workers: Callable[[int], None], broker: Broker
) -> None:
    workers(1)
    command = PythonProcess(
        "-m", "amphora.arpc.sender", "example", '{"c":"add"}', env={"AMQP_URL": broker.url}
    )
    with command:
        assert command.wait() == 1
    output = "\n".join(command.lines)
    assert "Error: <KeyError: x>" in output
    assert 'return {"res": req["x"] + req["y"]}' in output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "usage: arpc_msg_sender ROUTING_KEY JSON"),
        (("example",), "usage: arpc_msg_sender ROUTING_KEY JSON"),
        (("example", '{"c": '), "the second argument is not JSON"),
    ],
)
def test_wrong_arguments_are_explained(arguments: tuple[str, ...], expected: str) -> None:
    command = PythonProcess("-m", "amphora.arpc.sender", *arguments)
    with command:
        assert command.wait() == 2
    assert expected in command.lines[0]
