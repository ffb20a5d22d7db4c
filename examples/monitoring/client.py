from amphora import AmqpRpcClient

client = AmqpRpcClient("shop")
print(client.call.total({"apple": 3, "pear": 2}))
