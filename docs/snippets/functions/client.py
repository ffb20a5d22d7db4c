from amphora import AmqpRpcClient

client = AmqpRpcClient("functions")
print(client.call.add(1, 2))  # 3
print(client.call.text.shout("hello"))  # HELLO
print(client.call.sub(5, 3))  # 2
print(client.call.increment())  # 1
print(client.call.increment())  # 2
