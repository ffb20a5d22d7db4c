from amphora import AmqpRpcClient

client = AmqpRpcClient("quickstart")
print(client.call.mean(1, 2, 3, 4))  # 2.5
