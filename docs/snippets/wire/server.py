from amphora import AmqpRpcServer

server = AmqpRpcServer("wire")


@server.add_function
def add(x, y):
    return x + y


server.serve(nowait=False)
