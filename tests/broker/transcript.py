"""Exchanges with a broker that are the same on every one, to the last code and text.

Each script says something and writes down all that it hears.  `take(n)` waits for exactly `n`
things; the transcript ends with the proof that nothing else came.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from amphora.wire.codec import methods
from tests.broker.raw import RawClient, described

Basic, Channel, Confirm = methods.Basic, methods.Channel, methods.Confirm
Connection, Exchange, Queue, Tx = (
    methods.Connection,
    methods.Exchange,
    methods.Queue,
    methods.Tx,
)

# What is made up anew each time, or is the time.
RANDOM = (
    (re.compile(r"amq\.(gen|ctag)-[\w-]+"), r"amq.\1-?"),
    (re.compile(r"amq\.rabbitmq\.reply-to\.[\w.+/=-]+"), "amq.rabbitmq.reply-to.?"),
    (re.compile(r"datetime\.datetime\([^)]*\)"), "?"),
)


class Transcript:
    """What some clients of a broker hear.

    Args:
        url: the broker's.
        name: a prefix for names of queues and exchanges that nobody else uses.
    """

    def __init__(self, url: str, name: str, stack: ExitStack) -> None:
        self.url = url
        self.name = name
        self.lines: list[str] = []
        self._stack = stack
        self._clients: list[RawClient] = []
        self._declared: list[Any] = []

    def client(self, **settings: Any) -> RawClient:
        """Return another client."""
        client = self._stack.enter_context(RawClient(self.url, **settings))
        self._clients.append(client)
        return client

    def take(self, client: RawClient, count: int = 1) -> list[Any]:
        """Write down the next things that a client hears, and return them."""
        taken = []
        for _ in range(count):
            channel, heard = client.hear()
            self.note(client, f"channel {channel}: {described(heard)}")
            taken.append(heard)
        return taken

    def call(self, client: RawClient, *said: Any, channel: int = 1) -> Any:
        """Send methods that have one answer each, one after the other; return the last answer."""
        answer = None
        for method in said:
            client.send(method, channel=channel)
            if isinstance(method, Queue.Declare | Exchange.Declare):
                self._declared.append(method)
            (answer,) = self.take(client)
        return answer

    def note(self, client: RawClient, line: str) -> None:
        """Write a line."""
        line = line.replace(self.name, "~")
        for pattern, replacement in RANDOM:
            line = pattern.sub(replacement, line)
        self.lines.append(f"client {self._clients.index(client)}, {line}")

    def end(self) -> list[str]:
        """Return all lines, after nothing more has come to those who are still connected."""
        for client in self._clients:
            if client.connected:
                self.note(client, f"nothing more: {client.nothing_more()}")
        return self.lines

    def clean_up(self) -> None:
        """Delete what the script has declared, except what goes with its connection."""
        with RawClient(self.url) as client:
            for method in self._declared:
                if isinstance(method, Queue.Declare):
                    if method.queue.startswith(self.name) and not method.exclusive:
                        client.call(Queue.Delete(queue=method.queue))
                elif method.exchange.startswith(self.name):
                    client.call(Exchange.Delete(exchange=method.exchange))


Script = Callable[[Transcript], None]
SCRIPTS: dict[str, Script] = {}


def script(function: Script) -> Script:
    """Add a script, under its name."""
    SCRIPTS[function.__name__] = function
    return function


def reopen(t: Transcript, client: RawClient) -> None:
    """Agree to the end of channel 1, and open it again."""
    client.send(Channel.CloseOk())
    t.call(client, Channel.Open())


def each_refused(t: Transcript, *said: Any) -> None:
    """Say things that each cost the channel."""
    client = t.client()
    for method in said:
        t.call(client, method)
        reopen(t, client)


def each_fatal(t: Transcript, *said: Any) -> None:
    """Say things that each cost the connection."""
    for method in said:
        client = t.client()
        t.call(client, method)
        client.send(Connection.CloseOk(), channel=0)
        t.take(client)


def play(name: str, url: str, prefix: str) -> list[str]:
    """Return the lines of a script's transcript."""
    with ExitStack() as stack:
        transcript = Transcript(url, prefix, stack)
        stack.callback(transcript.clean_up)
        SCRIPTS[name](transcript)
        return transcript.end()
