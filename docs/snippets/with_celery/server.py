from tasks import total

from amphora import AmqpRpcServer

server = AmqpRpcServer("shop")
server.add_function(total.run, "total")
server.run()
