"""A service that finds things, or asks the next one to.

    python examples/chain/service.py shop stock
    python examples/chain/service.py stock supplier
    python examples/chain/service.py supplier

Start these three, in different terminals, and then the client.
"""

import sys

import gevent

from amphora import AmqpRpcClient, AmqpRpcServer, current

if len(sys.argv) not in (2, 3):
    sys.exit(__doc__)
name, following = sys.argv[1], sys.argv[2:]

# Its functions may be ended before they are done.
server = AmqpRpcServer(f"chain.{name}", cancellable=True)
clients = [AmqpRpcClient(f"chain.{each}", session=server.session) for each in following]


@server.add_function
def find(item):
    print(f"{name} looks for {item}, with {current().remaining():.1f} s left", flush=True)
    try:
        for client in clients:
            return client.call.find(item)  # in what is left of our caller's time
        gevent.sleep(300)  # stands for slow work
        return f"{item} from the {name}"
    finally:
        print(f"{name} has put {item} aside", flush=True)


@server.on_start
def tell():
    print(f"{name} is open", flush=True)


server.run()
