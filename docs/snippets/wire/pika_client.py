import json
import os
import uuid

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()

# Servers do the same: whoever is first makes them, and requests wait for the others.
channel.exchange_declare("rpc_wire_request", "direct", durable=True)
classic = {"x-queue-type": "classic"}
channel.queue_declare("rpc_wire_request", durable=True, arguments=classic)
channel.queue_bind("rpc_wire_request", "rpc_wire_request", routing_key="")


def answered(channel, method, properties, body):
    print(json.loads(body))  # {'result': 3}
    channel.stop_consuming()


# RabbitMQ's own shortcut: a queue for answers that need not be declared.
channel.basic_consume("amq.rabbitmq.reply-to", answered, auto_ack=True)

request_id = uuid.uuid4().hex
channel.basic_publish(
    exchange="rpc_wire_request",
    routing_key="",
    properties=pika.BasicProperties(
        content_type="application/json",
        message_id=request_id,
        correlation_id=request_id,
        reply_to="amq.rabbitmq.reply-to",
    ),
    body=json.dumps({"func": "add", "args": [1, 2], "kwargs": {}}),
)
channel.start_consuming()
connection.close()
