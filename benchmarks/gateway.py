"""Requests per second of a gateway, beside a bare web server that does nothing but echo.

    python -m benchmarks.gateway [--seconds N] [--url URL]

Each in a process of its own, asked in turns by the same clients, so that a busy machine slows all
alike.  `echo` is gevent.pywsgi with an application that reads a JSON array and returns its first
item, spared the 40 ms that Nagle's algorithm costs one caller; `direct` is an amphora client's own
calls, without HTTP; `gateway` is both together.  What a web server takes of the processor for each
request is beside its rate, which it does not share with broker, worker and clients.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from time import monotonic, perf_counter
from typing import Any

import gevent
import gevent.socket
import msgspec
from gevent.pywsgi import WSGIHandler, WSGIServer

from amphora import AmqpRpcClient, AmqpRpcServer
from amphora.gateway import Gateway
from amphora.gateway.server import Server
from amphora.web.serving import listen
from benchmarks.process import say
from benchmarks.runner import Process
from tests.support.rabbitmq import RabbitNode

NAMESPACE = "bench_gateway"
CALLERS = (1, 16, 64)
ROUNDS = 5
BODY = b'["hello, world"]'


class Undelayed(WSGIHandler):
    """Sends the body of an answer without waiting for an acknowledgement of its head."""

    def __init__(self, sock: Any, address: Any, server: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(sock, address, server)


def echo(environ: dict[str, Any], start: Any) -> list[bytes]:
    """Serve a request without a service behind it."""
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    answer = msgspec.json.encode(msgspec.json.decode(body)[0])
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]


def serve(role: str, url: str) -> None:
    """Serve for ever, as a worker or as a web server, and say the port."""
    if role == "worker":
        server = AmqpRpcServer(NAMESPACE, url=url)
        server.add_function(lambda value: value, "echo")
        server.serve()
        say("ready")
        server.serve(nowait=False)
    web: WSGIServer
    if role == "gateway":
        web = Server(listen("127.0.0.1", 0), Gateway(NAMESPACE, url=url))
    else:
        web = WSGIServer(("127.0.0.1", 0), echo, log=None, handler_class=Undelayed)
    web.start()
    say(web.socket.getsockname()[1])
    web.serve_forever()


def callers(count: int, seconds: float, connect: Callable[[], Callable[[], object]]) -> float:
    """Let callers call one after the other, each for itself; return the calls per second."""
    ends = monotonic() + seconds
    done = 0

    def call_again() -> None:
        nonlocal done
        call = connect()
        while monotonic() < ends:
            call()
            done += 1

    began = perf_counter()
    gevent.joinall([gevent.spawn(call_again) for _ in range(count)], raise_error=True)
    return done / (perf_counter() - began)


def over_http(port: int) -> Callable[[], object]:
    """Connect to a web server, and return what makes a request."""
    connection = gevent.socket.create_connection(("127.0.0.1", port))
    request = (
        f"POST /{NAMESPACE}/echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(BODY)}\r\n\r\n"
    ).encode() + BODY

    def call() -> None:
        connection.sendall(request)
        answer = connection.recv(4096)
        while not answer.endswith(b'\r\n\r\n"hello, world"'):
            more = connection.recv(4096)
            if not more:
                raise SystemExit(f"no answer but {answer!r}")
            answer += more

    return call


def measure(webs: dict[str, Process], ports: dict[str, int], client: Any, seconds: float) -> None:
    """Measure in turns, and print the medians."""
    for count in CALLERS:
        rates: dict[str, list[float]] = {"echo": [], "gateway": [], "direct": []}
        costs: dict[str, list[float]] = {"echo": [], "gateway": []}
        for _ in range(ROUNDS):
            for name, web in webs.items():
                before = web.cpu()
                rate = callers(count, seconds, partial(over_http, ports[name]))
                costs[name].append((web.cpu() - before) / (rate * seconds))
                rates[name].append(rate)
            rates["direct"].append(
                callers(count, seconds, lambda: partial(client.call.echo, "hello, world"))
            )
        shown = {name: statistics.median(values) for name, values in rates.items()}
        cost = {name: statistics.median(values) * 1e6 for name, values in costs.items()}
        print(
            f"{count:>7}  {shown['echo']:>7.0f}  {shown['gateway']:>7.0f}"
            f"  {shown['gateway'] / shown['echo']:>5.2f}  {shown['direct']:>7.0f}"
            f"  {cost['echo']:>6.0f}  {cost['gateway']:>8.0f}",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn (2)")
    parser.add_argument("--url", help="a broker; otherwise a node of its own")
    options = parser.parse_args()
    with ExitStack() as stack:
        url = options.url or stack.enter_context(RabbitNode()).url
        worker = Process("benchmarks.gateway", "worker", url)
        stack.callback(worker.close)
        worker.hear()
        webs, ports = {}, {}
        for name in ("echo", "gateway"):
            webs[name] = Process("benchmarks.gateway", name, url)
            stack.callback(webs[name].close)
            ports[name] = webs[name].hear()
        client = stack.enter_context(AmqpRpcClient(NAMESPACE, url=url))
        print("callers  echo/s   gateway  ratio  direct/s  us/echo  us/gateway")
        measure(webs, ports, client, options.seconds)


if __name__ == "__main__":
    if sys.argv[1:2] in (["worker"], ["gateway"], ["echo"]):
        serve(*sys.argv[1:3])
    else:
        main()
