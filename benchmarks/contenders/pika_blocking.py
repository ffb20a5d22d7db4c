"""pika's BlockingConnection, as in RabbitMQ's own tutorial on RPC.

Nothing is confirmed there, no message is persistent and answers are not acknowledged: it does
less than the others.  Each caller is a thread with a connection of its own.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from time import monotonic, perf_counter
from typing import Any

import pika

QUEUE = "benchmark_pika"


def serve(url: str, ready: Callable[[], None]) -> None:
    """Offer an echo."""
    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    channel.queue_declare(queue=QUEUE)

    def on_request(channel: Any, method: Any, properties: Any, body: bytes) -> None:
        channel.basic_publish(
            exchange="",
            routing_key=properties.reply_to,
            properties=pika.BasicProperties(correlation_id=properties.correlation_id),
            body=body,
        )
        channel.basic_ack(delivery_tag=method.delivery_tag)

    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue=QUEUE, on_message_callback=on_request)
    ready()
    channel.start_consuming()


class Caller:
    """The client of the tutorial."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()
        self._queue = self._channel.queue_declare(queue="", exclusive=True).method.queue
        self._channel.basic_consume(
            queue=self._queue, on_message_callback=self._on_response, auto_ack=True
        )

    def _on_response(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        if properties.correlation_id == self._correlation_id:
            self._response = body

    def call(self, body: bytes) -> bytes:
        """Call the echo."""
        self._response: bytes | None = None
        self._correlation_id = str(uuid.uuid4())
        self._channel.basic_publish(
            exchange="",
            routing_key=QUEUE,
            properties=pika.BasicProperties(
                reply_to=self._queue, correlation_id=self._correlation_id
            ),
            body=body,
        )
        while self._response is None:
            self._connection.process_data_events(time_limit=None)
        return self._response


class Client:
    """Call the echo from threads."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._callers: list[Caller] = []

    def callers(self, count: int, seconds: float, body: str) -> list[float]:
        """Return the latencies of `count` callers' calls."""
        while len(self._callers) < count:
            self._callers.append(Caller(self._url))
        latencies: list[float] = []
        end = monotonic() + seconds
        data = body.encode()

        def run(caller: Caller) -> None:
            while monotonic() < end:
                began = perf_counter()
                caller.call(data)
                latencies.append(perf_counter() - began)

        threads = [threading.Thread(target=run, args=(each,)) for each in self._callers[:count]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return latencies
