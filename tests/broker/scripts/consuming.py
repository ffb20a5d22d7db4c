"""Consuming: tags, acks, prefetch, priorities, cancel notices, dead letters."""

from __future__ import annotations

from amphora.wire.codec import Ack, Nack, methods
from tests.broker.transcript import Transcript, each_fatal, each_refused, reopen, script

Basic, Channel, Confirm = methods.Basic, methods.Channel, methods.Confirm
Connection, Exchange, Queue, Tx = methods.Connection, methods.Exchange, methods.Queue, methods.Tx


@script
def tags_count_up_and_redelivered_is_told(t: Transcript) -> None:
    client = t.client()
    t.call(client, Queue.Declare(queue=t.name), Basic.Qos(prefetch_count=2))
    client.publish(t.name, "a", "b", "c")
    t.call(client, Basic.Consume(queue=t.name, consumer_tag="tag"))
    t.take(client, 2)
    client.send(Basic.Reject(delivery_tag=1, requeue=True))
    t.take(client, 1)
    client.send(Ack(3))
    t.take(client, 1)
    client.send(Ack(0, multiple=True))
    client.send(Ack(0, multiple=True))
    t.call(client, Basic.Cancel(consumer_tag="tag"), Basic.Cancel(consumer_tag="tag"))


@script
def many_acks_and_nacks_at_once(t: Transcript) -> None:
    client = t.client()
    t.call(client, Queue.Declare(queue=t.name))
    client.publish(t.name, *"abcdef")
    for _ in range(6):
        t.call(client, Basic.Get(queue=t.name))
    client.send(Ack(2, multiple=True))
    client.send(Nack(4, multiple=True, requeue=True))
    t.call(client, Basic.Get(queue=t.name), Basic.Get(queue=t.name), Basic.Get(queue=t.name))
    client.send(Nack(0, multiple=True, requeue=False))
    t.call(client, Basic.Get(queue=t.name))


@script
def acks_that_mean_nothing(t: Transcript) -> None:
    each_refused(
        t,
        Ack(1),
        Ack(7, multiple=True),
        Nack(1),
        Basic.Reject(delivery_tag=1),
        Ack(0),
    )
    client = t.client()
    t.call(client, Queue.Declare(queue=t.name))
    client.publish(t.name, "a")
    t.call(client, Basic.Get(queue=t.name))
    client.send(Ack(1), Ack(1))
    t.take(client)


@script
def consumer_tags(t: Transcript) -> None:
    client = t.client()
    t.call(
        client,
        Queue.Declare(queue=t.name),
        Basic.Consume(queue=t.name, consumer_tag=""),
        Basic.Consume(queue=t.name, consumer_tag="one"),
        Basic.Consume(queue=t.name, consumer_tag="one"),
    )
    client.send(Connection.CloseOk(), channel=0)
    t.take(client)


@script
def exclusive_consumers(t: Transcript) -> None:
    client, other = t.client(), t.client()
    t.call(
        client,
        Queue.Declare(queue=t.name),
        Basic.Consume(queue=t.name, consumer_tag="one", exclusive=True),
    )
    t.call(other, Basic.Consume(queue=t.name, consumer_tag="two"))
    reopen(t, other)
    t.call(client, Basic.Cancel(consumer_tag="one"))
    t.call(other, Basic.Consume(queue=t.name, consumer_tag="two"))
    t.call(client, Basic.Consume(queue=t.name, consumer_tag="one", exclusive=True))


@script
def consumers_of_a_queue_that_goes_are_told(t: Transcript) -> None:
    told, untold, deleter = t.client(), t.client(capabilities={}), t.client()
    t.call(told, Queue.Declare(queue=t.name), Basic.Consume(queue=t.name, consumer_tag="one"))
    t.call(untold, Basic.Consume(queue=t.name, consumer_tag="two"))
    t.call(deleter, Queue.Delete(queue=t.name))
    t.take(told)


@script
def recovering(t: Transcript) -> None:
    client = t.client()
    t.call(client, Queue.Declare(queue=t.name))
    client.publish(t.name, "a", "b")
    t.call(client, Basic.Get(queue=t.name), Basic.Get(queue=t.name), Basic.Recover(requeue=True))
    t.call(client, Basic.Get(queue=t.name), Basic.Get(queue=t.name))
    each_fatal(t, Basic.Recover(requeue=False))


@script
def what_a_closed_channel_held_comes_again(t: Transcript) -> None:
    client, other = t.client(), t.client()
    t.call(client, Queue.Declare(queue=t.name))
    client.publish(t.name, "a", "b", message_id="m")
    t.call(client, Basic.Consume(queue=t.name, consumer_tag="one"))
    t.take(client, 2)
    t.call(other, Basic.Consume(queue=t.name, consumer_tag="two"))
    t.call(client, Channel.Close(200, "bye", 0, 0))
    t.take(other, 2)
    t.call(client, Channel.Open())


@script
def prefetch_of_a_whole_channel(t: Transcript) -> None:
    client = t.client()
    t.call(
        client,
        Queue.Declare(queue=t.name),
        Queue.Declare(queue=f"{t.name}.2"),
        Basic.Qos(prefetch_count=1, global_=True),
        Basic.Consume(queue=t.name, consumer_tag="one"),
        Basic.Consume(queue=f"{t.name}.2", consumer_tag="two"),
    )
    client.publish(t.name, "a")
    t.take(client)
    client.publish(f"{t.name}.2", "b")
    client.send(Ack(1))
    t.take(client)
    t.call(client, Basic.Qos(prefetch_count=0, global_=True))
    client.publish(t.name, "c")
    t.take(client)
    each_fatal(t, Basic.Qos(prefetch_size=1))


@script
def higher_priorities_first(t: Transcript) -> None:
    low, high = t.client(), t.client()
    t.call(low, Queue.Declare(queue=t.name), Basic.Qos(prefetch_count=1))
    t.call(high, Basic.Qos(prefetch_count=1))
    t.call(low, Basic.Consume(queue=t.name, consumer_tag="low"))
    t.call(high, Basic.Consume(queue=t.name, consumer_tag="high", arguments={"x-priority": 5}))
    low.publish(t.name, "a")
    t.take(high)
    low.publish(t.name, "b")
    t.take(low)
    low.publish(t.name, "c")
    high.send(Ack(1))
    t.take(high)
    each_refused(
        t, Basic.Consume(queue=t.name, consumer_tag="bad", arguments={"x-priority": "high"})
    )


@script
def one_active_consumer(t: Transcript) -> None:
    first, second = t.client(), t.client()
    t.call(
        first,
        Queue.Declare(queue=t.name, arguments={"x-single-active-consumer": True}),
        Basic.Consume(queue=t.name, consumer_tag="first"),
    )
    t.call(second, Basic.Consume(queue=t.name, consumer_tag="second"))
    first.publish(t.name, "a", "b")
    t.take(first, 2)
    t.call(first, Channel.Close(200, "", 0, 0))
    t.take(second, 2)


@script
def messages_by_priority(t: Transcript) -> None:
    client = t.client()
    t.call(client, Queue.Declare(queue=t.name, arguments={"x-max-priority": 5}))
    for body, priority in (("low", 1), ("none", None), ("most", 9), ("high", 5)):
        client.publish(t.name, body, priority=priority)
    for _ in range(4):
        t.call(client, Basic.Get(queue=t.name, no_ack=True))


@script
def dead_letters(t: Transcript) -> None:
    client = t.client()
    arguments = {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": f"{t.name}.dead",
        "x-max-length": 1,
    }
    t.call(
        client,
        Queue.Declare(queue=t.name, arguments=arguments),  # type: ignore[arg-type]
        Queue.Declare(queue=f"{t.name}.dead"),
        Basic.Consume(queue=f"{t.name}.dead", consumer_tag="dead", no_ack=True),
    )
    client.publish(t.name, "a", "b", headers={"h": 1}, message_id="m", expiration="60000")
    t.take(client)
    t.call(client, Basic.Get(queue=t.name))
    client.send(Basic.Reject(delivery_tag=2, requeue=False))
    t.take(client)


@script
def expired_messages(t: Transcript) -> None:
    client = t.client()
    t.call(
        client,
        Queue.Declare(
            queue=t.name,
            arguments={"x-dead-letter-exchange": "amq.fanout", "x-message-ttl": 60_000},
        ),
        Queue.Declare(queue=f"{t.name}.dead"),
        Queue.Bind(queue=f"{t.name}.dead", exchange="amq.fanout"),
        Basic.Consume(queue=f"{t.name}.dead", consumer_tag="dead", no_ack=True),
    )
    client.publish(t.name, "a", expiration="20", delivery_mode=2)
    t.take(client)
    client.publish(t.name, "b", expiration="0")
    t.take(client)
    t.call(client, Basic.Get(queue=t.name))
