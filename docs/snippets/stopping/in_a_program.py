import gevent

from amphora import AmqpRpcClient, AmqpRpcServer

server = AmqpRpcServer("stopping")


@server.add_function
def sleep(seconds):
    gevent.sleep(seconds)
    return "done"


server.serve()  # returns at once
client = AmqpRpcClient("stopping")
print(client.call.sleep(0.1))  # done

working = client.defer.sleep(1)
while not server.running:
    gevent.sleep(0.01)
server.stop(timeout=10)  # lets the handler finish, and sends its answer
print(working.get())  # done
print(server.state)  # stopped
client.close()
