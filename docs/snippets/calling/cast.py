from amphora import AmqpRpcClient

client = AmqpRpcClient("calling")
client.cast.send_message.sms("+1", "this one is on its way")
client.cast(wait_publish=True).send_message.sms("+1", "this one is in the broker")
