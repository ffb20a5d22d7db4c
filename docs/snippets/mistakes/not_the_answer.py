from amphora import AmqpRpcClient

client = AmqpRpcClient("mistakes")
result = client.defer.add(1, 2)
print(result)  # <Result of add [pending]>
try:
    result["sum"]
except TypeError as error:
    print(error)  # a Result has no items; its get() waits for the answer and returns it
print(result.get())  # 3
