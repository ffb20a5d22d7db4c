from amphora import AmqpRpcClient

client = AmqpRpcClient("calling", timeout=30)
print(client.call(timeout=5).add(1, 2))  # 3
print(client.call(function_name="send_message.sms")("+1", "hi"))  # hi to +1

sms = client.call(timeout=5).send_message.sms
print(sms("+1", "hi"))  # hi to +1
print(sms("+2", "hi"))  # hi to +2
