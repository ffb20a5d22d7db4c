from amphora import AmqpRpcClient, RemoteException

with AmqpRpcClient("shop") as client:
    print(client.call(timeout=10).total([3, 5]))  # 8
    print(list(client.stream(timeout=10).countdown(3)))  # [3, 2, 1]
    try:
        client.call(timeout=10).total([3, 0])
    except RemoteException as error:
        print(error.error_type, *error.args)  # NotForSale one of them has no price
