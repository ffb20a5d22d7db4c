from amphora import AmqpRpcClient, RemoteException

with AmqpRpcClient("store", timeout=10) as client:
    print(client.call.total([3, 5]))  # 8
    try:
        client.call.total(["three", "five"])
    except RemoteException as error:
        print(error.error_type)  # TypeError
    try:
        client.call.totl([3, 5])
    except RemoteException as error:
        print(error.error_type)  # KeyError
