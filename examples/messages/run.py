"""The whole program on this machine: Core, and two API servers.

    python examples/messages/run.py

Needs a broker: the one that AMQP_URL names, or a RabbitMQ on this machine.  Ctrl-C ends it.
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

    processes = [start("core.py"), *(start("api.py", "--port", str(port)) for port in ports)]
    gevent.signal_handler(signal.SIGTERM, end, processes)
    gevent.signal_handler(signal.SIGINT, print)  # the others hear ctrl-C as well
    print("Open two of the pages: be Alice on one, and Bob on the other.", flush=True)
    # All of them run, or none.
    gevent.wait([process.result for process in processes], count=1)
    gevent.wait([process.result for process in processes], timeout=1)
    end(processes)


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
