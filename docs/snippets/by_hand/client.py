import json
import os
import uuid

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.queue_declare("totals", durable=True)
mine = channel.queue_declare("", exclusive=True).method.queue
answers = {}


def answered(channel, method, properties, body):
    answers[properties.correlation_id] = json.loads(body)


channel.basic_consume(mine, answered, auto_ack=True)

request_id = uuid.uuid4().hex
asked = pika.BasicProperties(reply_to=mine, correlation_id=request_id)
channel.basic_publish("", "totals", json.dumps([3, 5]), asked)
while request_id not in answers:
    connection.process_data_events(time_limit=10)
print(answers[request_id])  # 8
channel.queue_delete("totals")
connection.close()
