"""A caller without amphora and gevent: `pika_caller.py URL NAMESPACE`."""

import json
import sys
from typing import Any

import pika

url, namespace = sys.argv[1:3]
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
answers: list[Any] = []


def on_answer(channel: Any, method: Any, properties: Any, body: bytes) -> None:
    answers.append((properties.correlation_id, json.loads(body)))


channel.basic_consume("amq.rabbitmq.reply-to", on_answer, auto_ack=True)
classic = {"x-queue-type": "classic"}
channel.queue_declare(f"rpc_{namespace}_request", durable=True, arguments=classic)
channel.exchange_declare(f"rpc_{namespace}_request", durable=True)
channel.queue_bind(f"rpc_{namespace}_request", f"rpc_{namespace}_request", "")


def call(number: int, *args: object) -> None:
    channel.basic_publish(
        f"rpc_{namespace}_request",
        "",
        json.dumps({"func": "add", "args": args}),
        pika.BasicProperties(correlation_id=str(number), reply_to="amq.rabbitmq.reply-to"),
    )
    while not answers:
        connection.process_data_events(time_limit=10)
    correlation_id, answer = answers.pop()
    assert correlation_id == str(number)
    print(answer["exception"]["type"] if "exception" in answer else f"result {answer['result']}")


call(1, 1, 2)
call(2, 1, "b")
call(3, 3, 4)
connection.close()
