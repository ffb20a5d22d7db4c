"""The broker on its socket: logging in, tuning, signs of life, time."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from amphora.broker.model.errors import Refusal
from amphora.broker.protocol.handshake import log_in
from amphora.testing import Broker
from amphora.wire.codec import encode_method_payload, methods
from amphora.wire.framing import HEARTBEAT_FRAME
from tests.broker.raw import RawClient
from tests.support.waiting import wait_until

Basic, Queue = methods.Basic, methods.Queue
USERS = {"guest": "guest", "alice": "sécret", "empty": ""}


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


# -- logging in -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "user"),
    [
        ("\0alice\0sécret", "alice"),
        ("\0guest\0guest", "guest"),
        ("\0empty\0", "empty"),
        ("\0alice\0secret", None),
        ("\0alice\0", None),
        ("\0nobody\0", None),
        ("\0\0", None),
        ("\0guest\0\udcff", None),
    ],
)
def test_a_login_needs_a_known_user_and_the_password(response: str, user: str | None) -> None:
    assert log_in("PLAIN", response, USERS, local=True) == user


def test_guest_can_log_in_on_this_machine_alone() -> None:
    assert log_in("PLAIN", "\0guest\0guest", USERS, local=False) is None
    assert log_in("PLAIN", "\0alice\0sécret", USERS, local=False) == "alice"


@pytest.mark.parametrize(
    ("mechanism", "response", "code"),
    [
        ("PLAIN", "guest guest", 502),
        ("PLAIN", "admin\0guest\0guest", 502),
        ("AMQPLAIN", "\xff", 502),
        ("AMQPLAIN", "\x05LOGINS\0\0\0\x05guest", 502),
        ("EXTERNAL", "", 503),
    ],
)
def test_a_login_of_another_form_is_an_error(mechanism: str, response: str, code: int) -> None:
    with pytest.raises(Refusal) as caught:
        log_in(mechanism, response, USERS, local=True)
    assert caught.value.code == code


def test_other_users_and_virtual_hosts_can_be_declared() -> None:
    with Broker(users={"al/ice": "s:e@c"}, vhosts=["my vhost", "other"]) as broker:
        with RawClient(broker.url) as client, RawClient(broker.url, log_in=False) as other:
            client.call(Queue.Declare(queue="q"))
            other.log_in(vhost="other")
            other.call(methods.Channel.Open())
            assert other.call(Queue.Declare(queue="q", passive=True)).reply_code == 404
        with (
            RawClient(broker.url, log_in=False) as client,
            pytest.raises(AssertionError, match="vhost / not found"),
        ):
            client.log_in(vhost="/")


def test_a_client_that_does_not_know_what_403_means_is_just_hung_up_on(broker: Broker) -> None:
    with (
        RawClient(broker.url, log_in=False) as client,
        pytest.raises(AssertionError, match="the end"),
    ):
        client.log_in(response="\0guest\0wrong", capabilities={})


@pytest.mark.parametrize(
    ("tune", "text"),
    [
        ((0, 131072), "negotiated channel_max = 0 is higher than the maximum allowed value (2047)"),
        ((2048, 131072), "negotiated channel_max = 2048 is higher than the maximum"),
        ((1, 4095), "negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"),
        ((1, 131073), "negotiated frame_max = 131073 is higher than the maximum"),
    ],
)
def test_tuning_beyond_the_offer_is_refused(
    broker: Broker, tune: tuple[int, int], text: str
) -> None:
    with RawClient(broker.url, log_in=False) as client:
        with pytest.raises(AssertionError) as caught:
            client.log_in(tune=tune)
        assert "reply_code=530" in str(caught.value)
        assert text in str(caught.value)


def test_frames_are_not_larger_than_agreed(broker: Broker) -> None:
    with RawClient(broker.url) as large, RawClient(broker.url, log_in=False) as small:
        small.log_in(tune=(10, 4096))
        small.call(methods.Channel.Open())
        large.call(Queue.Declare(queue="q"))
        large.publish("q", "x" * 10_000)
        small.call(Basic.Qos())
        small.largest_frame = 0
        assert len(small.call(Basic.Get(queue="q")).body) == 10_000
        assert small.largest_frame == 4096


def test_a_new_secret_is_taken_without_a_look(broker: Broker) -> None:
    with RawClient(broker.url) as client:
        client.send(methods.Connection.UpdateSecret("new", "why"), channel=0)
        client.hear_method(methods.Connection.UpdateSecretOk)


def test_names_may_have_any_characters(broker: Broker) -> None:
    name = "käse & brot / \U0001f9c0"
    with RawClient(broker.url) as client:
        declare = Queue.Declare()
        declare.queue = name
        assert encode_method_payload(declare)
        assert client.call(declare).queue == name
        client.publish(name, "a")
        get = Basic.Get(no_ack=True)
        get.queue = name
        assert client.call(get).method.routing_key == name
        client.publish(name + "?", "b", mandatory=True)
        assert client.hear()[1].method.routing_key == name + "?"


# -- time -----------------------------------------------------------------------------------------


def test_heartbeats_are_sent() -> None:
    with Broker() as broker, RawClient(broker.url, heartbeat=1) as client:
        waiting = gevent.spawn(client.hear)
        wait_until(lambda: client.heartbeats >= 2)
        waiting.kill()


def test_a_client_that_sends_heartbeats_is_kept(broker: Broker) -> None:
    with RawClient(broker.url, heartbeat=1) as client:
        for _ in range(12):
            gevent.sleep(0.2)
            client.say(HEARTBEAT_FRAME)
        client.call(Queue.Declare())


def test_a_silent_client_is_hung_up_on(broker: Broker) -> None:
    with RawClient(broker.url, heartbeat=1) as client:
        assert client.hear() == (-1, None)


def test_expiry_happens_without_anybody_saying_anything(broker: Broker) -> None:
    with RawClient(broker.url) as client:
        client.call(Queue.Declare(queue="q", arguments={"x-expires": 50}))
        wait_until(lambda: "q" not in broker.node.vhosts["/"].topology.queues)


def test_an_earlier_deadline_is_not_missed_for_a_later_one(broker: Broker) -> None:
    with RawClient(broker.url) as client:
        client.call(Queue.Declare(queue="late", arguments={"x-expires": 3_600_000}))
        gevent.sleep(0.01)
        client.call(Queue.Declare(queue="soon", arguments={"x-expires": 50}))
        wait_until(lambda: "soon" not in broker.node.vhosts["/"].topology.queues)
        assert "late" in broker.node.vhosts["/"].topology.queues


def test_a_port_that_is_taken_is_an_error(broker: Broker) -> None:
    with pytest.raises(OSError, match="in use"):
        Broker(broker.port).start()


def test_the_default_is_to_hear_this_machine_alone(broker: Broker) -> None:
    assert [each.getsockname() for each in broker._listeners] == [("127.0.0.1", broker.port)]
