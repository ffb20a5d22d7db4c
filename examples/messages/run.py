"""The whole program on this machine: Core, and two API servers.

    python examples/messages/run.py

Needs a broker: the one that AMQP_URL names, or a RabbitMQ on this machine.  Ctrl-C ends it.  Kill
an API server, and its pages go on at the other.
"""

import argparse
import signal
import sys
from pathlib import Path

import gevent
from gevent import subprocess

from amphora import AmphoraError, Session

HERE = Path(__file__).parent


def main():
    parser = argparse.ArgumentParser(description="The messages example, all of it.")
    parser.add_argument("ports", nargs="*", type=int, default=[8001, 8002], metavar="port")
    ports = parser.parse_args().ports
    try:
        with Session() as session:
            session.channel(timeout=2.0).close()
    except AmphoraError as error:
        sys.exit(f"There is no broker to run with: {error}")

    core = start("core.py")
    apis = {}
    for port in ports:
        others = [str(other) for other in ports if other != port]
        apis[start("api.py", "--port", str(port), "--others", *others)] = port
    processes = [core, *apis]
    gevent.signal_handler(signal.SIGTERM, end, processes)
    gevent.signal_handler(signal.SIGINT, print)  # the others hear ctrl-C as well
    print("Open two of the pages: be Alice on one, and Bob on the other.", flush=True)
    for process, port in apis.items():
        print(f"To end the API server on port {port}: kill -9 {process.pid}", flush=True)
    watch(core, apis)
    end(processes)


def watch(core, apis):
    """Return when there is nothing left to show: Core has ended, or all API servers have."""
    there = [core, *apis]
    while core in there and len(there) > 1:
        gevent.wait([process.result for process in there], count=1)
        # With ctrl-C all of them end.
        gevent.wait([process.result for process in there], timeout=1)
        ended = [process for process in there if process.poll() is not None]
        there = [process for process in there if process not in ended]
        if any(process.returncode > 0 for process in ended):
            return  # it cannot run: its port is taken, or there is no broker
        if core in there and len(there) > 1:
            left = ", ".join(str(apis[process]) for process in there[1:])
            for process in ended:
                port = apis[process]
                print(f"The API server on port {port} has ended; on with {left}.", flush=True)


def start(name, *arguments):
    return subprocess.Popen([sys.executable, str(HERE / name), *arguments])


def end(processes):
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        process.wait()


if __name__ == "__main__":
    main()
