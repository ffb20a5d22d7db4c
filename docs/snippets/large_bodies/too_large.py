from amphora import AmqpRpcClient, WrongRequest

client = AmqpRpcClient("files", serializer="msgpack", max_message_size=2**20)
try:
    client.call.digest(bytes(2**21))
except WrongRequest as error:
    print(str(error).partition(": ")[2])
    # they have 2097184 bytes, and a message can have 1048576
    print(error.executed)  # False
