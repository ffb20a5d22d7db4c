"""amphora at work: two servers in processes of their own, and a client that calls them.

    python examples/demo.py                    with the RabbitMQ of this machine
    python examples/demo.py --url amqp://...   with another one (or set AMQP_URL)

The broker on port 5672 of this machine is used if there is one.  If not, the demo starts a
RabbitMQ of its own, which is gone afterwards.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import gevent
from gevent import socket, subprocess
from gevent.event import Event
from gevent.fileobject import FileObject

from amphora import AmphoraError, AmqpRpcClient, AmqpRpcServer, RemoteException, Session

CALLS = 8
WORK = 0.5  # seconds that a call of the batch takes
AT_ONCE = 2  # calls that one server works on at the same time


class CannotGoOn(Exception):
    """There is no broker, or a server has ended."""


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

PORT = 5672
# Where RabbitMQ's own scripts are; the one on Debian's PATH is for the system's broker.
SCRIPTS = "/usr/lib/rabbitmq/bin:/opt/homebrew/sbin:/usr/local/sbin"
# Runs until its input, a pipe from the demo, is closed; then nothing is left.
PRIVATE_RABBITMQ = """
cd "$HOME"
epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 >epmd.log 2>&1 </dev/null &
epmd=$!
rabbitmq-server -noinput >rabbitmq.log 2>&1 </dev/null &
read -r _
kill -s KILL "$epmd" $!
wait
rm -rf "$HOME"
"""


@contextmanager
def broker(url: str | None) -> Iterator[str]:
    """Yield the URL of a broker: the given one, the one on this machine, or a private one."""
    if url or listens(PORT):
        yield url or f"amqp://guest:guest@127.0.0.1:{PORT}/"
        return
    path = f"{SCRIPTS}:{os.environ.get('PATH', os.defpath)}"
    if shutil.which("rabbitmq-server", path=path) is None:
        raise CannotGoOn(
            f"no broker listens on 127.0.0.1:{PORT} and no RabbitMQ is installed to start one:"
            " install rabbitmq-server, or name a broker with --url"
        )
    say("starting a RabbitMQ for the demo; this takes some seconds ...")
    home = tempfile.mkdtemp(prefix="amphora-demo-")
    port, epmd_port, distribution_port = free_ports(3)
    script = subprocess.Popen(
        ["/bin/sh", "-c", PRIVATE_RABBITMQ],
        stdin=subprocess.PIPE,
        start_new_session=True,
        env={
            "PATH": path,
            "HOME": home,
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"amphora-demo-{secrets.token_hex(4)}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_CONF_ENV_FILE": f"{home}/none",
            "RABBITMQ_CONFIG_FILE": f"{home}/none",
            "RABBITMQ_CONFIG_FILES": f"{home}/none",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{home}/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/none",
            "RABBITMQ_MNESIA_BASE": f"{home}/data",
            "RABBITMQ_LOG_BASE": home,
            "RABBITMQ_ALLOW_INPUT": "true",
        },
    )
    try:
        with gevent.Timeout(60, CannotGoOn("the demo's RabbitMQ did not start within 60 s")):
            while not listens(port):
                gevent.sleep(0.1)
        yield f"amqp://guest:guest@127.0.0.1:{port}/"
    finally:
        script.stdin.close()
        script.wait()


def listens(port: int) -> bool:
    """Return whether anything takes connections on a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


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
    arguments = parser.parse_args()
    # Errors on the way are part of the show here.
    logging.basicConfig(level=logging.CRITICAL)
    if arguments.serve:
        serve(arguments.serve)
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
