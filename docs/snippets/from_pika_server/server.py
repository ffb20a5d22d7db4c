import json
import os
import traceback

import pika


def total(prices):
    return sum(prices)


FUNCTIONS = {"total": total}

url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.confirm_delivery()  # from here on, basic_publish waits for the broker's confirm
channel.basic_qos(prefetch_count=1)
channel.exchange_declare("rpc_store_request", "direct", durable=True)
channel.exchange_declare("rpc_store_response", "direct", durable=True)
classic = {"x-queue-type": "classic"}
channel.queue_declare("rpc_store_request", durable=True, arguments=classic)
channel.queue_bind("rpc_store_request", "rpc_store_request", routing_key="")


def serve(channel, method, properties, body):
    request = json.loads(body)
    try:
        function = FUNCTIONS[request["func"]]
        answer = {"result": function(*request.get("args", []), **request.get("kwargs", {}))}
    except Exception as error:  # noqa: BLE001  # the caller is told whatever it is
        told = {"type": type(error).__name__, "args": [str(error)]}
        answer = {"exception": {**told, "traceback": traceback.format_exc()}}
    if properties.reply_to:  # a cast wants no answer
        channel.basic_publish(
            "rpc_store_response",
            properties.reply_to,
            json.dumps(answer),
            pika.BasicProperties(
                content_type="application/json",
                message_id=properties.message_id,
                correlation_id=properties.correlation_id,
                delivery_mode=properties.delivery_mode,
            ),
        )
    # Only now: a crash before this line means that the request is served again.
    channel.basic_ack(method.delivery_tag)


channel.basic_consume("rpc_store_request", serve)
channel.start_consuming()
