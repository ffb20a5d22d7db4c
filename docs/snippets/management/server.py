import logging

from amphora import AmqpRpcServer

server = AmqpRpcServer("sums", management={"kill"})


@server.add_function
def add(a, b):
    return a + b


@server.add_command
def set_level(name):
    logging.getLogger().setLevel(name.upper())
    return name


server.run()
