"""Channels and connections: how they are opened, broken and closed."""

from __future__ import annotations

from typing import Any

from amphora.wire.codec import methods
from amphora.wire.framing import FRAME_BODY, FRAME_HEADER, FRAME_METHOD, encode_frame
from tests.broker.transcript import Transcript, each_fatal, script

Basic, Channel, Confirm = methods.Basic, methods.Channel, methods.Confirm
Connection, Exchange, Queue, Tx = methods.Connection, methods.Exchange, methods.Queue, methods.Tx


@script
def channels(t: Transcript) -> None:
    client = t.client()
    t.call(client, Channel.Flow(active=True))
    t.call(client, Channel.Open(), channel=7)
    t.call(client, Channel.Close(200, "bye", 0, 0), channel=7)
    t.call(client, Channel.Open(), channel=7)
    # A channel that closes does nothing any more, and says so to another close.
    client.send(Queue.Declare(queue=f"{t.name}.none", passive=True), Queue.Declare(queue=t.name))
    t.take(client)
    t.call(client, Channel.Close(200, "", 0, 0))
    client.send(Channel.CloseOk())
    t.call(client, Queue.Declare(queue=t.name, passive=True), channel=7)


@script
def channel_errors_that_cost_the_connection(t: Transcript) -> None:
    each_fatal(
        t,
        Channel.Open(),
        Channel.Flow(active=False),
        Connection.TuneOk(),
        Basic.GetEmpty(),
    )
    for channel, method in (
        (9, Queue.Declare()),
        (9, Channel.Close(200, "", 0, 0)),
        (0, Channel.Open()),
        (0, Queue.Declare()),
        (0, Connection.StartOk({}, "PLAIN", "", "en_US")),
    ):
        client = t.client()
        client.send(method, channel=channel)
        t.take(client)
        client.send(Connection.CloseOk(), channel=0)
        t.take(client)


@script
def content_out_of_place(t: Transcript) -> None:
    publish = b"\x00\x3c\x00\x28\x00\x00\x00\x01q\x00"
    get = b"\x00\x3c\x00\x46\x00\x00\x01q\x00"
    header = b"\x00\x3c\x00\x00" + (5).to_bytes(8, "big") + b"\x00\x00"
    foreign = b"\x00\x32" + header[2:]
    for frames in (
        ((FRAME_HEADER, header),),
        ((FRAME_BODY, b"hello"),),
        ((FRAME_METHOD, publish), (FRAME_BODY, b"hello")),
        ((FRAME_METHOD, publish), (FRAME_METHOD, get)),
        ((FRAME_METHOD, publish), (FRAME_HEADER, foreign)),
        ((FRAME_METHOD, publish), (FRAME_HEADER, header), (FRAME_METHOD, get)),
        ((FRAME_METHOD, publish), (FRAME_HEADER, header), (FRAME_HEADER, header)),
    ):
        client = t.client()
        client.say(b"".join(encode_frame(kind, 1, payload) for kind, payload in frames))
        t.take(client)
        client.send(Connection.CloseOk(), channel=0)
        t.take(client)


@script
def what_follows_a_fatal_error_is_dropped(t: Transcript) -> None:
    client, other = t.client(), t.client()
    t.call(other, Queue.Declare(queue=t.name))
    client.send(Basic.Qos(prefetch_size=1))
    client.publish(t.name, "never")
    t.take(client)
    client.send(Connection.CloseOk(), channel=0)
    t.take(client)
    t.call(other, Basic.Get(queue=t.name))


@script
def goodbyes(t: Transcript) -> None:
    client, other = t.client(), t.client()
    t.call(client, Queue.Declare(queue=t.name, exclusive=True))
    t.call(client, Connection.Close(200, "goodbye", 0, 0), channel=0)
    client.close()
    t.call(other, Queue.Declare(queue=t.name, passive=True))


@script
def logins(t: Transcript) -> None:
    def attempt(**settings: Any) -> None:
        client = t.client(log_in=False)
        try:
            client.log_in(**settings)
        except AssertionError as error:
            t.note(client, str(error))
            client.send(Connection.CloseOk(), channel=0)
            t.take(client)
        else:
            t.note(client, "logged in")

    attempt()
    attempt(response="\0guest\0wrong")
    attempt(response="\0nobody\0guest")
    attempt(mechanism="AMQPLAIN", response="\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x05guest")
    attempt(vhost="nowhere")
