"""Publishing: returns, confirms, refusals, transactions, direct replies."""

from __future__ import annotations

from amphora.wire.codec import Ack, methods
from tests.broker.transcript import Transcript, each_refused, reopen, script

Basic, Channel, Confirm = methods.Basic, methods.Channel, methods.Confirm
Connection, Exchange, Queue, Tx = methods.Connection, methods.Exchange, methods.Queue, methods.Tx


@script
def returns_come_before_their_acks(t: Transcript) -> None:
    client = t.client()
    t.call(client, Confirm.Select(), Queue.Declare(queue=t.name))
    client.publish(f"{t.name}.none", "lost", mandatory=True, message_id="1", priority=3)
    t.take(client, 2)
    client.publish(t.name, "taken", mandatory=True)
    t.take(client)
    client.publish(f"{t.name}.none", "dropped")
    t.take(client)
    client.publish("k", "lost", exchange="amq.topic", mandatory=True)
    t.take(client, 2)


@script
def returns_without_confirms(t: Transcript) -> None:
    client = t.client()
    client.publish(f"{t.name}.none", "a", "b", mandatory=True)
    client.publish(f"{t.name}.none", "", mandatory=True, headers={"h": [1, {"x": None}]})
    t.take(client, 3)


@script
def a_full_queue_nacks(t: Transcript) -> None:
    client = t.client()
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    t.call(client, Confirm.Select(), Queue.Declare(queue=t.name, arguments=arguments))  # type: ignore[arg-type]
    for body in "abc":
        client.publish(t.name, body)
        t.take(client)
    t.call(client, Basic.Get(queue=t.name, no_ack=True))
    client.publish(t.name, "d")
    t.take(client)


@script
def refused_publishes(t: Transcript) -> None:
    client = t.client()
    t.call(client, Queue.Declare(queue=t.name))
    for settings in (
        {"exchange": f"{t.name}.none"},
        {"exchange": "amq.rabbitmq.trace"},
        {"expiration": "soon"},
        {"expiration": "-1"},
        {"expiration": "1.5"},
        {"user_id": "somebody"},
        {"delivery_mode": 7},
        {"headers": {"CC": "no list"}},
        {"reply_to": "amq.rabbitmq.reply-to"},
    ):
        client.publish(t.name, "x", **settings)
        t.take(client)
        reopen(t, client)
    # After its channel was closed, what a client had said before it knew is dropped.
    client.publish(t.name, "x", exchange=f"{t.name}.none")
    client.publish(t.name, "y")
    t.take(client)
    reopen(t, client)
    t.call(client, Queue.Purge(queue=t.name))
    client.publish(t.name, "x", immediate=True)
    t.take(client)
    client.send(Connection.CloseOk(), channel=0)
    t.take(client)


@script
def large_bodies_and_all_properties(t: Transcript) -> None:
    client = t.client()
    t.call(client, Queue.Declare(queue=t.name))
    client.publish(t.name, "x" * 300_000, content_type="text/plain", content_encoding="utf-8")
    client.publish(
        t.name,
        "",
        headers={"a": 1, "b": [True, 2.5, "t", {"n": None}], "long": 2**40},
        delivery_mode=2,
        priority=5,
        correlation_id="c",
        reply_to="r",
        expiration="60000",
        message_id="m",
        message_type="t",
        user_id="guest",
        app_id="app",
    )
    first, _ = [t.call(client, Basic.Get(queue=t.name, no_ack=True)) for _ in range(2)]
    t.note(client, f"{len(first.body)} bytes")


@script
def transactions(t: Transcript) -> None:
    client, other = t.client(), t.client()
    t.call(client, Queue.Declare(queue=t.name), Tx.Select(), Tx.Select())
    client.publish(t.name, "a", "b")
    t.call(other, Basic.Get(queue=t.name))
    t.call(client, Tx.Commit())
    t.call(client, Basic.Get(queue=t.name))
    client.send(Ack(1))
    client.publish(t.name, "c")
    t.call(client, Tx.Rollback())
    t.call(other, Basic.Get(queue=t.name))
    t.call(client, Channel.Close(200, "", 0, 0))
    t.call(other, Basic.Get(queue=t.name))
    t.call(other, Basic.Get(queue=t.name))


@script
def mandatory_in_a_transaction(t: Transcript) -> None:
    client = t.client()
    t.call(client, Tx.Select())
    client.publish(f"{t.name}.none", "a", mandatory=True)
    client.send(Tx.Commit())
    t.take(client, 2)


@script
def a_transaction_that_is_done_in_part(t: Transcript) -> None:
    client = t.client()
    full = Queue.Declare(
        queue=t.name, arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
    )
    t.call(client, full, Tx.Select())
    client.publish(f"{t.name}.none", "a", mandatory=True)
    client.publish(t.name, "b")
    client.send(Tx.Commit())
    t.take(client, 2)


@script
def transactions_and_confirms_do_not_mix(t: Transcript) -> None:
    for said in (
        (Tx.Select(), Confirm.Select()),
        (Confirm.Select(), Confirm.Select(), Tx.Select()),
        (Tx.Commit(),),
        (Tx.Rollback(),),
    ):
        client = t.client()
        t.call(client, *said)


@script
def direct_replies(t: Transcript) -> None:
    client, server = t.client(), t.client()
    t.call(server, Queue.Declare(queue=t.name))
    t.call(client, Basic.Consume(queue="amq.rabbitmq.reply-to", consumer_tag="r", no_ack=True))
    client.publish(t.name, "question", reply_to="amq.rabbitmq.reply-to", correlation_id="1")
    t.call(client, Basic.Qos())
    question = t.call(server, Basic.Get(queue=t.name, no_ack=True))
    address = question.properties.reply_to
    declare = Queue.Declare(passive=True)
    # pamqp would not let this name through.
    declare.queue = address
    t.call(server, declare)
    server.publish(address, "answer", correlation_id="1")
    t.take(client)
    t.call(client, Basic.Cancel(consumer_tag="r"))
    server.publish(address, "too late", mandatory=True)
    t.take(server)
    each_refused(t, Basic.Consume(queue="amq.rabbitmq.reply-to", consumer_tag="r"))
