import json
import os
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
AHEAD = 10  # the server may be so many items ahead
request_id = uuid.uuid4().hex
items = []
# The worker and which run of the request; the number behind the last item, and the answer there.
stream = {"worker": None, "run": None, "end": None, "answer": None}


def came(channel, method, properties, body):
    headers = properties.headers or {}
    run, number = headers.get("x-amphora-run"), headers.get("x-amphora-seq")
    if properties.type == "started":
        if not items:
            stream.update(worker=properties.app_id, run=run)
    elif run != stream["run"]:
        return  # another worker has the request as well; or nobody has begun it
    elif properties.type == "item":
        told = json.loads(body)
        new = told["results"] if "results" in told else [told["result"]]
        if number <= len(items) + 1:  # or some before it are missing: they will be sent again
            items.extend(new[len(items) + 1 - number :])
    else:
        stream.update(end=number or 1, answer=json.loads(body))


channel.basic_consume(REPLIES, came, auto_ack=True)


def grant():
    """Tell the worker how far it may go, and how far the items were taken."""
    properties = pika.BasicProperties(
        type="credit",
        content_type="application/json",
        reply_to=REPLIES,  # that of the request
        expiration="30000",
        delivery_mode=1,
    )
    taken = len(items)
    body = json.dumps([[request_id, stream["run"], taken + AHEAD, taken]])
    channel.basic_publish("rpc_wire_control", stream["worker"], body, properties)


channel.basic_publish(
    exchange="rpc_wire_request",
    routing_key="",
    properties=pika.BasicProperties(
        type="stream",
        content_type="application/json",
        message_id=request_id,
        correlation_id=request_id,
        reply_to=REPLIES,
        expiration="10000",  # for its beginning
        headers={"x-amphora-allowed": AHEAD, "x-amphora-endless": True},
    ),
    body=json.dumps({"func": "count", "args": [1000]}),
)
while stream["end"] is None or len(items) + 1 < stream["end"]:
    connection.process_data_events(time_limit=1)
    if stream["run"] is not None:
        grant()  # when something came, and once a second
if stream["run"] is not None:
    grant()  # the server need not keep them any longer
print(items == list(range(1000)))  # True
print(stream["answer"])  # {'result': 'that was all'}
connection.close()
