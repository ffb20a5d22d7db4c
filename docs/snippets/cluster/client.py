from amphora import AmqpRpcClient

client = AmqpRpcClient("cluster", queue_type="quorum")
print(client.call.add(1, 2))  # 3
