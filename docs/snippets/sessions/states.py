import logging

from amphora import AmqpRpcClient, AmqpRpcServer

logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
logging.getLogger("amphora").setLevel(logging.INFO)

with AmqpRpcServer("states") as server, AmqpRpcClient("states") as client:
    print(client.state)  # idle
    server.add_function(abs)
    server.serve()
    client.call.abs(-1)
    print(client.state, server.state)  # connected serving
    print(server)  # <AmqpRpcServer states [0 running, serving]>
print(client.state, server.state)  # closed stopped
