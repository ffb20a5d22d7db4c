import os

import gevent

from amphora import AmqpRpcClient, AmqpRpcServer

server = AmqpRpcServer("fork")
server.add_function(sum)
server.serve()
client = AmqpRpcClient("fork")
print("parent", client.call.sum([1, 2]), flush=True)  # parent 3

child = gevent.fork()
if child == 0:
    # Connections of its own, and another response queue; the parent's stay the parent's.
    print("child", client.call.sum([3, 4]), flush=True)  # child 7
    os._exit(0)

gevent.os.waitpid(child, 0)
print("parent", client.call.sum([5, 6]))  # parent 11
