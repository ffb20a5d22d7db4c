"""What the web calls: `python examples/gunicorn_flask/service.py`."""

from amphora import AmqpRpcServer

STOCK = {"tea": 3, "coffee": 0}

server = AmqpRpcServer("stock")


@server.add_function
def in_stock(item):
    return STOCK[item]


server.run()
