import gevent
from gevent.event import Event

from amphora import AmqpRpcClient, AmqpRpcServer, Session

session = Session()
server = AmqpRpcServer("tables", session=session)
client = AmqpRpcClient("tables", session=session)
client.create_new_request_queue("table 4", x_expires=60)
taken, cooked = Event(), Event()


@server.add_function
def serve(dish):
    taken.set()
    cooked.wait()
    return f"{dish} is served"


waiter = gevent.spawn(server.receive_from_queue, "table 4")
soup = client.defer(routing_key="table 4").serve("soup")
taken.wait()
waiter.kill()  # with the soup in hand

cooked.set()
server.receive_from_queue("table 4", max_calls=1)
print(soup.get())  # soup is served

client.remove_request_queue("table 4")
session.close()
