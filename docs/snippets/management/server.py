import logging

from amphora import AmqpRpcServer

server = AmqpRpcServer("sums", management={"kill"})
logging.getLogger("amphora.audit").addHandler(logging.FileHandler("audit.log"))


@server.add_function
def add(a, b):
    return a + b


@server.add_command
def set_level(name):
    logging.getLogger().setLevel(name.upper())
    return name


server.run()
