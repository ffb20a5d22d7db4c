from amphora import AmqpRpcServer

server = AmqpRpcServer("mistakes")


@server.add_function
def add(a, b):
    return a + b


server.serve()
