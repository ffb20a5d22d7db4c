from amphora import AmqpRpcClient

client = AmqpRpcClient("calling")
print(client.call.add(1, 2))  # 3
print(client.call.add(x=1, y=2))  # 3
print(client.call.send_message.sms("+1", "hi"))  # hi to +1
