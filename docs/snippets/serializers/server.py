from amphora import AmqpRpcServer

server = AmqpRpcServer("serializers")


@server.add_function
def echo(value):
    return value


server.run()
