"""arpc's names in a program: what they do that its page does not show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import entry_points
from typing import Any

import gevent
import pytest

from amphora import AmqpRpcClient, NoResult, RemoteException
from amphora.arpc import mq
from tests.support.brokers import Broker
from tests.support.waiting import wait_until


class Service:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def c_echo(self, req: mq.Document) -> mq.Document:
        """Return the request."""
        self.seen.append(req)
        return req

    def c_fail(self, req: mq.Document) -> None:
        raise LookupError("nothing here")

    def c_sleep(self, req: mq.Document) -> None:
        gevent.sleep(req["seconds"])


@pytest.fixture
def amqp(broker: Broker) -> Iterator[mq.AMQPOperations]:
    operations = mq.AMQPOperations(useack=True, persistent=True, url=broker.url)
    yield operations
    operations.close()


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def server(amqp: mq.AMQPOperations, namespace: str, service: Service) -> Iterator[mq.JSONServer]:
    made = mq.make_json_server(amqp, namespace, service, management={"kill", "eval"})
    made.add_command("hello", lambda req: {"hello": req["name"]})
    looping = gevent.spawn(made.loop)
    yield made
    made.stop()
    looping.get(timeout=30)


@pytest.fixture
def caller(amqp: mq.AMQPOperations, namespace: str) -> Iterator[mq.ServiceCaller]:
    made = mq.ServiceCaller(amqp, namespace)
    yield made
    made.close()


def test_a_method_gets_the_whole_document(server: mq.JSONServer, caller: mq.ServiceCaller) -> None:
    document = {"c": "echo", "x": [1, {"y": None}]}
    assert caller.send_request(document) == document


def test_a_method_that_is_async_is_refused(amqp: mq.AMQPOperations, namespace: str) -> None:
    class Later:
        async def c_echo(self, req: mq.Document) -> mq.Document:
            return req

    with pytest.raises(TypeError, match="echo is an async def function"):
        mq.make_json_server(amqp, namespace, Later())


def test_a_class_in_the_place_of_a_service_is_refused(
    amqp: mq.AMQPOperations, namespace: str
) -> None:
    class Numbers:
        def c_echo(self, req: mq.Document) -> mq.Document:
            return req

    with pytest.raises(TypeError, match=r"Numbers\.c_echo is a method without its object"):
        mq.make_json_server(amqp, namespace, Numbers)


def test_a_request_without_a_name_is_refused_before_it_is_sent(caller: mq.ServiceCaller) -> None:
    for document in ({"x": 1}, {"c": 3}, "echo"):
        with pytest.raises(ValueError, match="a document with the name of a method"):
            caller.send_request(document)  # type: ignore[arg-type]


def test_without_replies_nothing_is_waited_for(
    server: mq.JSONServer, amqp: mq.AMQPOperations, namespace: str, service: Service
) -> None:
    silent = mq.ServiceCaller(amqp, namespace, want_replies=False)
    assert silent.send_request({"c": "echo", "n": 1}) is None
    wait_until(lambda: service.seen == [{"c": "echo", "n": 1}])
    silent.close()


def test_the_timeout_is_an_argument_of_the_request(
    server: mq.JSONServer, caller: mq.ServiceCaller
) -> None:
    with pytest.raises(NoResult, match=r"within 0\.2 s"):
        caller.send_request({"c": "sleep", "seconds": 1}, timeout=0.2)


def test_lazy_requests_are_got_later(server: mq.JSONServer, caller: mq.ServiceCaller) -> None:
    lazy = [caller.send_lazy_request({"c": "echo", "n": n}) for n in range(5)]
    assert [result.get()["n"] for result in lazy] == [0, 1, 2, 3, 4]


def test_an_exception_has_its_name_and_traceback(
    server: mq.JSONServer, caller: mq.ServiceCaller
) -> None:
    with pytest.raises(RemoteException, match="LookupError: nothing here") as caught:
        caller.send_request({"c": "fail"})
    assert caught.value.error_type == "LookupError"
    assert 'raise LookupError("nothing here")' in caught.value.traceback
    assert "test_mq.py" in caught.value.traceback.splitlines()[1]


def test_management_is_asked_with_documents(
    server: mq.JSONServer, amqp: mq.AMQPOperations, namespace: str
) -> None:
    caller = mq.ServiceCaller(amqp, f"mgt.{namespace}")
    wait_until(lambda: list(caller.send_to_all({"c": "ping"})))
    assert caller.send_request({"c": "ping"})["wid"] == server.wid
    assert caller.send_request({"c": "hello", "name": "you"}) == {"hello": "you"}
    assert caller.send_request({"c": "eval", "expr": "6 * 7"}) == 42
    stats = caller.send_request({"c": "stats"})
    assert sorted(stats) == ["exceptions", "host", "pid", "processed", "waittimes", "wid"]
    with pytest.raises(ValueError, match="cannot be lazy"):
        caller.send_lazy_request({"c": "ping"})
    assert caller.send_request({"c": "kill"})["stopping"] is True
    wait_until(lambda: server.server.state == "stopped")
    caller.close()


def test_any_client_can_call_a_service_of_arpcs(
    server: mq.JSONServer, namespace: str, broker: Broker
) -> None:
    with AmqpRpcClient(namespace, url=broker.url) as client:
        assert client.call.echo({"c": "echo", "n": 1}) == {"c": "echo", "n": 1}


def test_the_raw_channel_is_there(amqp: mq.AMQPOperations) -> None:
    channel = amqp.channel()
    queue = channel.queue_declare("", exclusive=True).queue
    assert queue
    assert channel.get(queue) is None
    channel.close()


def test_connection_parameters_have_py_amqplibs_names() -> None:
    amqp = mq.AMQPOperations(
        host="broker.example:5673", userid="me", password="secret-word", virtual_host="/v"
    )
    assert repr(amqp) == "<AMQPOperations amqp://me:***@broker.example:5673/%2Fv>"
    assert "secret-word" not in repr(amqp)


@pytest.mark.parametrize("key", [None, 5, b"example"])
def test_the_key_of_a_service_is_a_text(amqp: mq.AMQPOperations, key: Any) -> None:
    with pytest.raises(ValueError, match="the key of a service must be text, not"):
        mq.ServiceCaller(amqp, key)


def test_a_command_that_wants_no_replies(
    amqp: mq.AMQPOperations, server: mq.JSONServer, namespace: str
) -> None:
    told: list[Any] = []
    server.add_command("note", told.append)
    wait_until(lambda: server.server.ready)
    for target in (namespace, server.wid):
        with closing(mq.ServiceCaller(amqp, f"mgt.{target}", want_replies=False)) as caller:
            for answer in (
                caller.send_request({"c": "note", "to": target}),
                *caller.send_to_all({"c": "note", "to": target}),
            ):
                assert answer is None
            with pytest.raises(ValueError, match="a document with the name of a method"):
                caller.send_request({"to": target})
    wait_until(lambda: len(told) == 4)
    assert [each["to"] for each in told] == [namespace, namespace, server.wid, server.wid]


def test_a_service_that_wants_no_replies(
    amqp: mq.AMQPOperations, server: mq.JSONServer, service: Service, namespace: str
) -> None:
    wait_until(lambda: server.server.ready)
    with closing(mq.ServiceCaller(amqp, namespace, want_replies=False)) as caller:
        assert caller.send_request({"c": "echo", "n": 1}) is None
        assert list(caller.send_to_all({"c": "echo", "n": 2})) == [None]
    wait_until(lambda: sorted(each["n"] for each in service.seen) == [1, 2])


def test_the_command_is_installed_under_the_name_of_the_page_as_well() -> None:
    scripts = {script.name: script.value for script in entry_points(group="console_scripts")}
    assert scripts["arpc_msg_sender.py"] == scripts["arpc_msg_sender"] == "amphora.arpc.sender:main"
