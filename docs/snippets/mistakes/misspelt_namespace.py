from amphora import AmqpRpcClient, NoResult

client = AmqpRpcClient("mistake", timeout=6)
try:
    client.call.add(1, 2)
except NoResult as error:
    print(type(error).__name__)  # NoResult
