from gevent import monkey

monkey.patch_all()

from amphora import AmqpRpcClient, AmqpRpcServer  # noqa: E402

server = AmqpRpcServer("patched")
server.add_function(str.title, name="title")
server.serve()
client = AmqpRpcClient("patched")
print(client.call.title("hello world"))  # Hello World
