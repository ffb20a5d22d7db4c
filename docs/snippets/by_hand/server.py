import json
import os

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.queue_declare("totals", durable=True)
channel.basic_qos(prefetch_count=1)


def total(channel, method, properties, body):
    answer = json.dumps(sum(json.loads(body)))
    told = pika.BasicProperties(correlation_id=properties.correlation_id)
    channel.basic_publish("", properties.reply_to, answer, told)
    channel.basic_ack(method.delivery_tag)


channel.basic_consume("totals", total)
channel.start_consuming()
