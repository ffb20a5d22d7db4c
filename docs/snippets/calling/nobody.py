from amphora import AmqpRpcClient, NoServer

client = AmqpRpcClient("calling")
print(client.call(wait_for_server=5).add(1, 2))  # 3

client = AmqpRpcClient("caling")
try:
    client.call(wait_for_server=0.5).add(1, 2)
except NoServer as error:
    print(error)  # caling.add was not sent: no server of caling is running
    print(error.executed)  # False
