from amphora import AmqpRpcClient, RemoteException

with AmqpRpcClient("orders") as client:
    print(client.call.find(17))  # a bicycle
    try:
        client.call.find(18)
    except RemoteException as error:
        print(error.error_type)  # NotFound
