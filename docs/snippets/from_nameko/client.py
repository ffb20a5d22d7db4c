from amphora import AmqpRpcClient

with AmqpRpcClient("greeting") as client:
    print(client.call.hello("Ann"))  # Hello, Ann!
    later = client.defer.hello("Bob")
    print(later.get())  # Hello, Bob!
