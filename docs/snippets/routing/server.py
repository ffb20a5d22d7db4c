from amphora import AmqpRpcServer

server = AmqpRpcServer("doors")


@server.add_function
def ring(name):
    return f"{name} rings at the front door"


server.receive_from_queue("front door")
