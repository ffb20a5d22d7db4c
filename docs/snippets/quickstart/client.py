from amphora import AmqpRpcClient

client = AmqpRpcClient("math")
print(client.call.mean(1, 2, 3, 4))  # 2.5
