"""`amphora queue`: list, create and remove."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from tests.cli.conftest import Amphora
from tests.support.brokers import Broker
from tests.support.rpc import MakeClient, MakeServer, add
from tests.support.waiting import wait_until


@pytest.fixture
def queue(broker: Broker, namespace: str) -> Iterator[str]:
    """The name of Alice's queue, which is gone after the test."""
    name = f"rpc_{namespace}_queue_Alice"
    yield name
    broker.delete_queue(name)


def test_list_shows_what_waits_and_who_takes_it(
    amphora: Amphora, make_server: MakeServer, make_client: MakeClient, queue: str, namespace: str
) -> None:
    make_server(add)
    client = make_client()
    client.create_new_request_queue("Alice")
    client.cast(routing_key="Alice", wait_publish=True).add(1, 2)
    outcome = amphora("queue", "list", namespace, "Alice")
    assert [line.split() for line in outcome.out.splitlines()] == [
        ["queue", "label", "waiting", "consumers"],
        [f"rpc_{namespace}_request", "0", "1"],
        [queue, "Alice", "1", "0"],
    ]
    assert outcome.err == f"amphora: 1 worker of {namespace}\n"
    assert amphora("queue", "list", namespace, "Alice", "--json").json_lines == [
        {
            "queue": f"rpc_{namespace}_request",
            "label": None,
            "exists": True,
            "messages": 0,
            "consumers": 1,
        },
        {"queue": queue, "label": "Alice", "exists": True, "messages": 1, "consumers": 0},
    ]


def test_list_tells_of_queues_that_are_not_there(
    amphora: Amphora, make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    outcome = amphora("queue", "list", namespace)
    assert (outcome.code, outcome.out) == (6, "")
    assert f"there is no namespace '{namespace}'" in outcome.err
    make_server(add)
    outcome = amphora("queue", "list", namespace, "Bob")
    assert outcome.code == 6
    assert "there is no queue for 'Bob'" in outcome.err
    shared, bob = amphora("queue", "list", namespace, "Bob", "--json").json_lines
    assert (shared["exists"], bob["exists"]) == (True, False)
    assert not broker.queue_exists(f"rpc_{namespace}_queue_Bob")


def test_a_created_queue_takes_requests(
    amphora: Amphora, make_server: MakeServer, broker: Broker, queue: str, namespace: str
) -> None:
    make_server(add)
    assert amphora("queue", "create", namespace, "Alice") == (0, "", "")
    assert amphora("queue", "create", namespace, "Alice", "--json").json == {
        "queue": queue,
        "label": "Alice",
    }
    amphora("call", f"{namespace}.add", 1, 2, "--cast", "--routing-key", "Alice")
    assert broker.ready_messages(queue) == 1


def test_a_created_queue_may_have_another_key_and_expire(
    amphora: Amphora, make_server: MakeServer, broker: Broker, queue: str, namespace: str
) -> None:
    make_server(add)
    words = ["queue", "create", namespace, "Alice", "--routing-key", "users.Alice"]
    assert amphora(*words, "--expires", 60).code == 0
    amphora("call", f"{namespace}.add", 1, 2, "--cast", "--routing-key", "users.Alice")
    assert broker.ready_messages(queue) == 1
    outcome = amphora(*words, "--expires", 61)
    assert (outcome.code, outcome.out) == (7, "")
    assert "406" in outcome.err
    assert amphora(*words, "--expires", -1).code == 2


def test_a_queue_expires_when_nobody_uses_it(
    amphora: Amphora, broker: Broker, queue: str, namespace: str
) -> None:
    words = ["queue", "create", namespace, "Alice", "--expires", 0.2]
    # On a busy machine it may have expired before it is bound.
    wait_until(lambda: amphora(*words).code == 0)

    def is_gone() -> bool:
        gevent.sleep(0.4)  # asking renews it, so it is asked less often than it takes to expire
        return not broker.queue_exists(queue)

    wait_until(is_gone)


def test_an_empty_queue_is_removed(
    amphora: Amphora, broker: Broker, queue: str, namespace: str
) -> None:
    amphora("queue", "create", namespace, "Alice")
    assert amphora("queue", "remove", namespace, "Alice") == (0, "", "")
    assert not broker.queue_exists(queue)
    outcome = amphora("queue", "remove", namespace, "Alice")
    assert outcome == (6, "", f"amphora: error: {namespace} has no queue for 'Alice'\n")


def test_an_empty_quorum_queue_is_removed(
    amphora: Amphora, make_client: MakeClient, broker: Broker, queue: str, namespace: str
) -> None:
    make_client(queue_type="quorum").create_new_request_queue("Alice")
    assert amphora("queue", "remove", namespace, "Alice") == (0, "", "")
    assert not broker.queue_exists(queue)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_requests_are_not_removed_by_mistake(
    amphora: Amphora,
    make_server: MakeServer,
    make_client: MakeClient,
    broker: Broker,
    queue: str,
    namespace: str,
    queue_type: str,
) -> None:
    make_server(add)
    make_client(queue_type=queue_type).create_new_request_queue("Alice")
    amphora("call", f"{namespace}.add", 1, 2, "--cast", "--routing-key", "Alice")
    outcome = amphora("queue", "remove", namespace, "Alice")
    assert (outcome.code, outcome.out) == (7, "")
    assert "--force" in outcome.err
    assert broker.ready_messages(queue) == 1
    outcome = amphora("queue", "remove", namespace, "Alice", "--force", "--json")
    assert outcome.json == {"queue": queue, "label": "Alice", "lost": 1}
    assert not broker.queue_exists(queue)


def test_many_queues_are_looked_up_together(
    amphora: Amphora, make_server: MakeServer, make_client: MakeClient, queue: str, namespace: str
) -> None:
    make_server(add)
    make_client().create_new_request_queue("Alice")
    labels = [f"nobody-{number}" for number in range(200)]
    outcome = amphora("queue", "list", namespace, *labels, "Alice", "--json")
    assert outcome.code == 6
    shown = {line["label"]: line["exists"] for line in outcome.json_lines}
    assert list(shown) == [None, *labels, "Alice"]
    assert [label for label, exists in shown.items() if exists] == [None, "Alice"]
