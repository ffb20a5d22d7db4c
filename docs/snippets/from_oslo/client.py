from amphora import AmqpRpcClient, RemoteException

with AmqpRpcClient("shop", timeout=30) as client:
    print(client.call.total([3, 5]))  # 8
    print(client.call(headers={"user": "Ann"}).buyer())  # Ann
    try:
        client.call.total(["three", "five"])
    except RemoteException as error:
        print(error.error_type)  # TypeError
