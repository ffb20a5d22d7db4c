"""Queues and exchanges: how they are made, bound, deleted and refused."""

from __future__ import annotations

from amphora.wire.codec import methods
from tests.broker.transcript import Transcript, each_fatal, each_refused, script

Basic, Channel, Confirm = methods.Basic, methods.Channel, methods.Confirm
Connection, Exchange, Queue, Tx = methods.Connection, methods.Exchange, methods.Queue, methods.Tx


@script
def declaring_queues(t: Transcript) -> None:
    client = t.client()
    q = t.name
    t.call(
        client,
        Queue.Declare(queue=q),
        Queue.Declare(queue=q),
        Queue.Declare(queue=q, passive=True),
        Queue.Declare(),
    )
    client.send(Queue.Declare(queue=q, nowait=True))
    client.publish(q, "a", "b")
    t.call(client, Queue.Purge(queue=q), Queue.Purge(queue=q))
    client.publish(q, "a")
    t.call(
        client,
        Queue.Delete(queue=q),
        Queue.Delete(queue=q),
        Queue.Declare(queue=f"{q}.ex", exclusive=True, auto_delete=True),
    )


@script
def refused_queues(t: Transcript) -> None:
    q = t.name
    first = t.client()
    t.call(
        first,
        Queue.Declare(queue=q),
        Queue.Declare(queue=f"{q}.mine", exclusive=True),
        Queue.Declare(queue=f"{q}.used"),
        Basic.Consume(queue=f"{q}.used", consumer_tag="c"),
    )
    first.publish(q, "a")
    t.call(first, Basic.Qos(prefetch_count=1))
    each_refused(
        t,
        Queue.Declare(queue=f"{q}.none", passive=True),
        Queue.Declare(queue=q, durable=True),
        Queue.Declare(queue=q, auto_delete=True),
        Queue.Declare(queue=q, exclusive=True),
        Queue.Declare(queue=q, arguments={"x-expires": 100_000}),
        Queue.Declare(queue="amq.mine"),
        Queue.Declare(queue=f"{q}.2", arguments={"x-expires": 0}),
        Queue.Declare(queue=f"{q}.2", arguments={"x-expires": "soon"}),
        Queue.Declare(queue=f"{q}.2", arguments={"x-max-priority": 256}),
        Queue.Declare(queue=f"{q}.2", arguments={"x-overflow": "explode"}),
        Queue.Declare(queue=f"{q}.2", arguments={"x-dead-letter-routing-key": "k"}),
        Queue.Declare(queue=f"{q}.mine", passive=True),
        Queue.Declare(queue=f"{q}.mine", exclusive=True),
        Queue.Delete(queue=f"{q}.mine"),
        Queue.Purge(queue=f"{q}.mine"),
        Queue.Purge(queue=f"{q}.none"),
        Basic.Consume(queue=f"{q}.mine"),
        Basic.Get(queue=f"{q}.mine"),
        Basic.Get(queue=f"{q}.none"),
        Basic.Consume(queue=f"{q}.none"),
        Queue.Bind(queue=f"{q}.none", exchange="amq.direct", routing_key="k"),
        Queue.Bind(queue=q, exchange=f"{q}.none", routing_key="k"),
        Queue.Bind(queue=q, exchange="", routing_key="k"),
        Queue.Delete(queue=q, if_empty=True),
        Queue.Delete(queue=f"{q}.used", if_unused=True),
    )


@script
def exchanges(t: Transcript) -> None:
    client = t.client()
    x, y, q = f"{t.name}.x", f"{t.name}.y", t.name
    t.call(
        client,
        Exchange.Declare(exchange=x, exchange_type="topic"),
        Exchange.Declare(exchange=x, exchange_type="topic"),
        Exchange.Declare(exchange=x, exchange_type="fanout", passive=True),
        Exchange.Declare(exchange=y, exchange_type="fanout", auto_delete=True),
        Exchange.Bind(destination=y, source=x, routing_key="a.#"),
        Queue.Declare(queue=q),
        Queue.Bind(queue=q, exchange=y),
        Queue.Bind(queue=q, exchange=y),
    )
    client.publish("a.b", "one", exchange=x)
    client.publish("b.a", "two", exchange=x)
    t.call(client, Basic.Get(queue=q, no_ack=True), Basic.Get(queue=q, no_ack=True))
    t.call(
        client,
        Exchange.Unbind(destination=y, source=x, routing_key="a.#"),
        Queue.Unbind(queue=q, exchange=y),
        Queue.Unbind(queue=q, exchange=y),
        Exchange.Delete(exchange=x),
        Exchange.Delete(exchange=x),
    )
    client.send(Exchange.Declare(exchange=x, nowait=True), Exchange.Delete(exchange=x, nowait=True))


@script
def refused_exchanges(t: Transcript) -> None:
    x = f"{t.name}.x"
    client = t.client()
    t.call(
        client,
        Exchange.Declare(exchange=x, exchange_type="direct"),
        Queue.Declare(queue=t.name),
        Queue.Bind(queue=t.name, exchange=x, routing_key="k"),
    )
    each_refused(
        t,
        Exchange.Declare(exchange=f"{x}.none", passive=True),
        Exchange.Declare(exchange=x, exchange_type="fanout"),
        Exchange.Declare(exchange=x, exchange_type="direct", durable=True),
        Exchange.Declare(exchange=x, exchange_type="direct", internal=True),
        Exchange.Declare(exchange="amq.mine", exchange_type="direct"),
        Exchange.Declare(exchange="", exchange_type="direct"),
        Exchange.Delete(exchange=x, if_unused=True),
        Exchange.Delete(exchange="amq.direct"),
        Exchange.Delete(exchange=""),
        Exchange.Bind(destination=x, source=f"{x}.none", routing_key="k"),
        Exchange.Bind(destination=f"{x}.none", source=x, routing_key="k"),
    )
    each_fatal(t, Exchange.Declare(exchange=f"{x}.2", exchange_type="strange"))


@script
def headers_and_alternates(t: Transcript) -> None:
    client = t.client()
    x, q = f"{t.name}.x", t.name
    t.call(
        client,
        Exchange.Declare(
            exchange=x,
            exchange_type="headers",
            arguments={"alternate-exchange": "amq.fanout"},
        ),
        Queue.Declare(queue=q),
        Queue.Declare(queue=f"{q}.rest"),
        Queue.Bind(queue=q, exchange=x, arguments={"x-match": "all", "a": 1, "b": "c"}),
        Queue.Bind(queue=f"{q}.rest", exchange="amq.fanout"),
    )
    client.publish("", "both", exchange=x, headers={"a": 1, "b": "c", "d": True})
    client.publish("", "one", exchange=x, headers={"a": 1})
    for queue in (q, f"{q}.rest"):
        t.call(client, Basic.Get(queue=queue, no_ack=True), Basic.Get(queue=queue, no_ack=True))
