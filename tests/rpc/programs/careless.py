"""A program that ends without closing what it opened: `careless.py URL NAMESPACE STATE`."""

import socket
import sys

import amphora

url, namespace, state = sys.argv[1:4]
if state == "without a broker":
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"amqp://127.0.0.1:{taken.getsockname()[1]}"
client = amphora.AmqpRpcClient(namespace, url=url)
if state == "connected":
    client.cast(wait_publish=True).add(1, 2)
elif state == "pending":
    client.defer(wait_publish=True).add(1, 2)
elif state == "read":
    for _ in range(2):
        assert list(client.stream.count(3)) == [0, 1, 2]
elif state == "reading":
    streams = [client.stream.count(1_000_000) for _ in range(20)]
    for stream in streams:
        next(stream)
    results = [client.defer.hold() for _ in range(20)]
elif state == "serving":
    server = amphora.AmqpRpcServer(namespace, url=url)
    server.add_function(max)
    server.serve()
    client.call.max([1, 2])
elif state == "without a broker":
    try:
        client.call(timeout=0.2).add(1, 2)
    except amphora.NoResult:
        pass
print(state)
