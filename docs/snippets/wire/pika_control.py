import json
import os
import time
import uuid

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()

# As servers do: whoever is first makes them, and requests wait for the others.
channel.exchange_declare("rpc_wire_request", "direct", durable=True)
classic = {"x-queue-type": "classic"}
channel.queue_declare("rpc_wire_request", durable=True, arguments=classic)
channel.queue_bind("rpc_wire_request", "rpc_wire_request", routing_key="")
channel.exchange_declare("rpc_wire_control", "direct", durable=True)

REPLIES = "amq.rabbitmq.reply-to"
answers = {}


def answered(channel, method, properties, body):
    answers[properties.correlation_id] = json.loads(body)


channel.basic_consume(REPLIES, answered, auto_ack=True)


def send(func, *args, seconds, headers=None):
    request_id = uuid.uuid4().hex
    # Any clock that only goes forwards; the server compares it with itself alone.
    sent = time.monotonic_ns() // 1000
    properties = pika.BasicProperties(
        content_type="application/json",
        message_id=request_id,
        correlation_id=request_id,
        reply_to=REPLIES,
        expiration=str(seconds * 1000),
        headers={**(headers or {}), "x-amphora-sent": sent},
    )
    body = json.dumps({"func": func, "args": args, "kwargs": {}})
    channel.basic_publish("rpc_wire_request", "", body, properties)
    return request_id


def call(func, *args, seconds=10, headers=None):
    request_id = send(func, *args, seconds=seconds, headers=headers)
    while request_id not in answers:
        connection.process_data_events(time_limit=seconds)
    return answers.pop(request_id)["result"]


def cancel(request_id, seconds):
    properties = pika.BasicProperties(
        type="cancel",
        content_type="application/json",
        reply_to=REPLIES,  # that of the request
        expiration="30000",
        delivery_mode=1,
    )
    body = json.dumps([[request_id, seconds]])
    channel.basic_publish("rpc_wire_control", "", body, properties)


told = call("about_the_call", seconds=20, headers={"trace": "7f3a"})
print(told["trace"])  # 7f3a
print(10 < told["left"] <= 20)  # True

before = call("cancelled")
sleeping = send("sleep", 60, seconds=60)
while call("cancelled") == before:
    cancel(sleeping, 60)  # again, until a server has heard it
print(sleeping in answers)  # False
connection.close()
