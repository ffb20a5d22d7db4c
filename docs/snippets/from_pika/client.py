from amphora import AmqpRpcClient

with AmqpRpcClient("shop", timeout=10) as client:
    print(client.call.total([3, 5]))  # 8
