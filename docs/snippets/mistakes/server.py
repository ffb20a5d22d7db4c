import time

from amphora import AmqpRpcServer

server = AmqpRpcServer("mistakes")


@server.add_function
def add(a, b):
    return a + b


@server.add_function
def nap(seconds):
    time.sleep(seconds)  # nothing else runs meanwhile
    return "awake"


server.run()
