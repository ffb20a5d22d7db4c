import gevent

from amphora import AmqpRpcClient, AmqpRpcServer, Session

session = Session()
server = AmqpRpcServer("tables", session=session)
client = AmqpRpcClient("tables", session=session)
client.create_new_request_queue("table 4", x_expires=60)
table = client.defer(routing_key="table 4")


@server.add_function
def serve(dish):
    return f"{dish} is served"


soup, cake = table.serve("soup"), table.serve("cake")

# One request, and no more: the other one stays in the queue.
print(server.receive_from_queue("table 4", max_calls=1))  # 1
print(soup.get())  # soup is served

# Whatever comes within two seconds.
print(server.receive_from_queue("table 4", timeout=2.0))  # 1
print(cake.get())  # cake is served

# Two requests, or a Timeout.
try:
    server.receive_from_queue("table 4", max_calls=2, timeout=0.5)
except gevent.Timeout:
    print("the guests want nothing more")  # the guests want nothing more

# In the background, until it is stopped.
receiving = server.receive_from_queue("table 4", block=False)
print(table.serve("tea").get())  # tea is served
print(receiving.stop())  # 1

client.remove_request_queue("table 4")
session.close()
