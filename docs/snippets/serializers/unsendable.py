from amphora import AmqpRpcClient, WrongRequest

client = AmqpRpcClient("serializers")
try:
    client.call.echo([1, {"owner": object()}])
except WrongRequest as error:
    where = str(error).removeprefix("the arguments of serializers.echo cannot be sent: ")
    print(where)  # args[0][1]["owner"]: type object cannot be sent
