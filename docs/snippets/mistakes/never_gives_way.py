import time

from amphora import AmqpRpcServer

server = AmqpRpcServer("mistakes")
server.serve()
while True:
    time.sleep(1)
