from amphora import AmqpRpcClient

client = AmqpRpcClient("serializers", serializer="msgpack")
print(client.call.echo(b"\x00\xff"))  # b'\x00\xff'
