from amphora import AmqpRpcClient, RemoteException, iwait

with AmqpRpcClient("shop", timeout=10) as client:
    print(client.call.total([3, 5], discount=50))  # 4.0
    results = [client.defer.total([n]) for n in range(3)]
    print(sorted(result.get() for result in iwait(results)))  # [0.0, 1.0, 2.0]
    try:
        client.call.total(["three", "five"])
    except RemoteException as error:
        print(error.error_type)  # TypeError
