from amphora import AmqpRpcClient, NoResult

client = AmqpRpcClient("mistakes", timeout=8)
try:
    client.call.nap(20)
except NoResult as error:
    print(type(error).__name__)  # NoResult
