from amphora import AmqpRpcClient

with AmqpRpcClient("calling") as client:
    print(client.call.add(1, 2))  # 3
    print(repr(client))  # <AmqpRpcClient calling [0 pending, connected]>
print(client.state)  # closed
