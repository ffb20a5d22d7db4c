from amphora import AmqpRpcClient

client = AmqpRpcClient("calling")
first = client.defer.add(1, 2)
second = client.defer.add(3, 4)
# ... do something else ...
print(first.get(), second.get())  # 3 7
