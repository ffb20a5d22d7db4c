from amphora import AmqpRpcClient, WrongRequest

client = AmqpRpcClient("mistakes")
try:
    client.call.ad(1, 2)
except WrongRequest as error:
    print(error)  # mistakes has no function 'ad'; did you mean 'add'?
