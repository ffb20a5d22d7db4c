import json
import os
import time
import uuid

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
# What servers of the namespace "shop" declare too; this way the client may be the first.
channel.exchange_declare("rpc_shop_request", "direct", durable=True)
classic = {"x-queue-type": "classic"}
channel.queue_declare("rpc_shop_request", durable=True, arguments=classic)
channel.queue_bind("rpc_shop_request", "rpc_shop_request", routing_key="")

answers = {}


def answered(channel, method, properties, body):
    answers[properties.correlation_id] = json.loads(body)


channel.basic_consume("amq.rabbitmq.reply-to", answered, auto_ack=True)


def call(function, *args, seconds=10):
    request_id = uuid.uuid4().hex
    properties = pika.BasicProperties(
        message_id=request_id,
        correlation_id=request_id,
        reply_to="amq.rabbitmq.reply-to",
        expiration=str(seconds * 1000),
    )
    body = json.dumps({"func": function, "args": args})
    channel.basic_publish("rpc_shop_request", "", body, properties)
    deadline = time.monotonic() + seconds
    while request_id not in answers:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(function)
        connection.process_data_events(left)
    answer = answers.pop(request_id)
    if "exception" in answer:
        raise RuntimeError(f"{answer['exception']['type']}: {answer['exception']['args']}")
    return answer["result"]


print(call("total", [3, 5]))  # 8
connection.close()
