from amphora import AmqpRpcClient, RemoteException

with AmqpRpcClient("shop", timeout=30) as client:
    print(client.call.total([3, 5]))  # 8
    print(list(client.stream.countdown(3)))  # [3, 2, 1]
    try:
        client.call.total(["three", "five"])
    except RemoteException as error:
        print(error.error_type)  # TypeError
