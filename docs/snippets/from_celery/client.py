from amphora import AmqpRpcClient, RemoteException

with AmqpRpcClient("shop", timeout=10) as client:
    result = client.defer.total([3, 5], discount=50)
    print(result.get())  # 4.0
    try:
        client.call.total(["three", "five"])
    except RemoteException as error:
        print(error.error_type)  # TypeError
