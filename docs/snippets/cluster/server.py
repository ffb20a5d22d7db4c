from amphora import AmqpRpcServer

server = AmqpRpcServer("cluster", queue_type="quorum")


@server.add_function
def add(x, y):
    return x + y


server.run()
