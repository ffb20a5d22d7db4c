from amphora import AmqpRpcClient

client = AmqpRpcClient("math")
print(client.call.sum_numbers(1, 2, 3, 4))  # 10, with no sleep in between
print(client.call.hypotenuse(3, 4))  # 5.0
client.call.hypotenuse("foo", "bar")  # RemoteException: TypeError: unsupported ...
