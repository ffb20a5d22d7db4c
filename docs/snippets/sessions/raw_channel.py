from amphora import Session
from amphora.wire.properties import Properties

with Session() as session, session.channel() as channel:
    channel.queue_declare("notes")
    channel.confirm_select()
    channel.publish("", "notes", Properties(content_type="text/plain"), b"hello")
    message = channel.get("notes")
    print(message.body)  # b'hello'
    channel.ack(message.method.delivery_tag)
    channel.queue_delete("notes")
