"""amphora at work: two servers in processes of their own, and a client that calls them.

    python examples/demo.py                    with a broker of its own
    python examples/demo.py --url amqp://...   with a RabbitMQ (or set AMQP_URL)

The demo's own broker is amphora's, made for development and tests: it is gone afterwards.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import gevent
from gevent import subprocess
from gevent.event import Event
from gevent.fileobject import FileObject

from amphora import AmphoraError, AmqpRpcClient, AmqpRpcServer, RemoteException, Session
from amphora.testing import Broker

CALLS = 8
WORK = 0.5  # seconds that a call of the batch takes
AT_ONCE = 2  # calls that one server works on at the same time


class CannotGoOn(Exception):
    """The demo's broker does not start, or a server has ended."""


# -- a server -----------------------------------------------------------------------------------


def serve(namespace: str) -> None:
    """Be one of the servers until the demo ends."""
    server = AmqpRpcServer(namespace, concurrency=AT_ONCE)

    @server.add_function
    def add(x, y):
        return x + y

    @server.add_function
    def divide(x, y):
        return x / y

    @server.add_function
    def square(x):
        gevent.sleep(WORK)  # stands for a query, or for a request to somebody else
        return {"value": x * x, "pid": os.getpid()}

    server.serve()
    # The demo holds the other end of this pipe.  It closes when the demo ends, however it ends.
    FileObject(sys.stdin).read()
    server.stop(timeout=0)


@contextmanager
def servers(url: str, namespace: str, count: int) -> Iterator[list[subprocess.Popen]]:
    """Start server processes, and end them afterwards."""
    started = []
    try:
        for _ in range(count):
            process = subprocess.Popen(
                [sys.executable, __file__, "--serve", namespace],
                # Not an argument: everybody on the machine may read those, passwords too.
                env={**os.environ, "AMQP_URL": url},
                stdin=subprocess.PIPE,
                start_new_session=True,  # ctrl-C is for the demo alone
            )
            started.append(process)
        yield started
    finally:
        for process in started:
            process.stdin.close()
        for process in started:
            process.wait()


# -- the client ---------------------------------------------------------------------------------


def show(client: AmqpRpcClient, processes: list[subprocess.Popen]) -> None:
    """Call the servers in several ways, and say what happens."""
    say("\n1. A call, as if the function were here")
    say(f"   client.call.add(2, 3) -> {client.call.add(2, 3)}")

    say(f"\n2. {CALLS} deferred calls of {WORK} s each; the servers share them")
    batch(client)

    say("\n3. An error in a server comes with the server's traceback")
    say("   client.call.divide(1, 0)")
    try:
        client.call.divide(1, 0)
    except RemoteException as error:
        say(f"   RemoteException: {error}")
        for line in error.traceback.splitlines():
            say(f"   | {line}")

    victim = processes[0]
    say(f"\n4. The same {CALLS} calls, and server {victim.pid} is killed while it works on some")
    killing = gevent.spawn_later(WORK / 2, victim.kill)
    batch(client)
    killing.get()
    say("   None was lost: the broker gave them to the other server.")


def batch(client: AmqpRpcClient) -> None:
    """Make all calls of a batch at once, and print each answer as it comes."""
    start = time.monotonic()
    calls = {client.defer.square(x): x for x in range(CALLS)}
    shares: Counter[int] = Counter()
    for result in gevent.iwait(calls):
        answer = result.get()
        shares[answer["pid"]] += 1
        took = time.monotonic() - start
        say(
            f"   {took:3.1f} s   square({calls[result]}) -> {answer['value']:<4} by {answer['pid']}"
        )
    took = time.monotonic() - start
    by_whom = ", ".join(f"{share} by {pid}" for pid, share in sorted(shares.items()))
    say(f"   {CALLS} x {WORK} s of work took {took:.1f} s: {by_whom}")


def wait_for(processes: list[subprocess.Popen], session: Session, namespace: str) -> None:
    """Wait until all servers take requests.

    Only so that each gets its share: an earlier call would wait in the broker, and not fail.
    """
    channel = session.channel()
    queue = f"rpc_{namespace}_request"
    while channel.queue_declare(queue).consumer_count < len(processes):
        for process in processes:
            if process.poll() is not None:
                raise CannotGoOn(f"a server has ended with status {process.returncode}")
        gevent.sleep(0.05)
    channel.close()


def clean_up(session: Session, namespace: str) -> None:
    """Remove what a namespace keeps when nobody is there: its queue of requests."""
    channel = session.channel()
    channel.queue_delete(f"rpc_{namespace}_request")
    channel.exchange_delete(f"rpc_{namespace}_request")
    channel.exchange_delete(f"rpc_{namespace}_response")


# -- the broker ---------------------------------------------------------------------------------


def be_broker() -> None:
    """Be the demo's broker until it ends."""
    with Broker() as own:
        say(own.url)
        FileObject(sys.stdin).read()


@contextmanager
def broker(url: str | None) -> Iterator[str]:
    """Yield the URL of a broker: the given one, or one that is here for the demo alone."""
    if url:
        yield url
        return
    process = subprocess.Popen(
        [sys.executable, __file__, "--broker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        url = process.stdout.readline().decode().strip()
        if not url:
            raise CannotGoOn("the demo's broker did not start")
        yield url
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


# -- all of it ----------------------------------------------------------------------------------


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


def demo(url: str | None) -> int:
    """Run the demo from beginning to end, and return its exit status."""
    namespace = f"demo-{secrets.token_hex(4)}"
    try:
        with ExitStack() as stack:
            url = stack.enter_context(broker(url))
            session = stack.enter_context(Session(url))
            session.channel(timeout=3).close()  # a broker that cannot be used is reported now
            stack.callback(clean_up, session, namespace)
            processes = stack.enter_context(servers(url, namespace, 2))
            client = stack.enter_context(AmqpRpcClient(namespace, session=session))
            wait_for(processes, session, namespace)
            say(f"broker    {session.endpoint}")
            say("servers   " + " and ".join(f"process {process.pid}" for process in processes))
            show(client, processes)
    except (CannotGoOn, AmphoraError, ValueError) as error:
        print(f"The demo cannot go on: {error}.", file=sys.stderr)
        return 1
    say("\nThat was amphora. To write this yourself: examples/math, then docs/quickstart.rst.")
    return 0


def main() -> int:
    """Return the exit status: 0 done, 1 it cannot go on, 130 interrupted."""
    parser = argparse.ArgumentParser(description="Show amphora at work.")
    parser.add_argument("--url", default=os.environ.get("AMQP_URL"), help="a broker's URL")
    parser.add_argument("--serve", metavar="NAMESPACE", help=argparse.SUPPRESS)
    parser.add_argument("--broker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    # Errors on the way are part of the show here.
    logging.basicConfig(level=logging.CRITICAL)
    if arguments.serve:
        serve(arguments.serve)
        return 0
    if arguments.broker:
        be_broker()
        return 0
    interrupted = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, interrupted.set)
    running = gevent.spawn(demo, arguments.url)
    gevent.wait((running, interrupted), count=1)
    if running.ready():
        return running.get()
    running.kill()  # returns when everything that was started has ended
    say("\nThe demo was interrupted.")
    return 130


if __name__ == "__main__":
    sys.exit(main())
