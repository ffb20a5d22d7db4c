"""A shop whose calls can be watched: metrics at /metrics, and a trace for each call."""

import os

from gevent.pywsgi import WSGIServer
from traces import set_up

from amphora import AmqpRpcClient, AmqpRpcServer
from amphora.observe.health import health
from amphora.observe.metrics import of_process
from amphora.observe.tracing import trace

PRICES = {"apple": 30, "pear": 45}

server = AmqpRpcServer("shop")
client = AmqpRpcClient("shop")
for each in (server, client):
    of_process.watch(each)
    trace(each)


@server.add_function(expected=KeyError)
def price(fruit):
    return PRICES[fruit]


@server.add_function
def total(basket):
    return sum(count * client.call.price(fruit) for fruit, count in basket.items())


@server.on_start
def listen():
    set_up("shop")
    address = "127.0.0.1", int(os.environ.get("METRICS_PORT", "9100"))
    http = WSGIServer(address, health(server, metrics=of_process.snapshot), log=None)
    http.start()
    print(f"metrics at http://127.0.0.1:{http.server_port}/metrics")


if __name__ == "__main__":
    server.run()
