from amphora import AmqpRpcClient, WrongRequest

client = AmqpRpcClient("serializers")
try:
    client.call.echo(object())
except WrongRequest as error:
    print(error)  # the arguments of serializers.echo cannot be sent: type object cannot be sent
