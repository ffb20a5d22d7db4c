"""A web server whose page shows the progress of jobs as they run.

    python examples/progress/web.py --port 8003

A browser reads a job's progress as server-sent events, and this program reads it from a stream.
"""

import argparse
import json
import signal
import sys
from pathlib import Path
from urllib.parse import parse_qs

import gevent
from gevent import socket
from gevent.event import Event
from gevent.pywsgi import WSGIHandler, WSGIServer

from amphora import AmphoraError, AmqpRpcClient

PAGE = Path(__file__).with_name("page.html")
client = AmqpRpcClient("progress")


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/":
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [PAGE.read_bytes()]
    if path == "/copy":
        asked = parse_qs(environ["QUERY_STRING"])
        try:
            title, pages = asked["title"][0], int(asked["pages"][0])
        except (KeyError, ValueError):
            start_response("400 Bad Request", [("Content-Type", "text/plain")])
            return [b"a title and a number of pages are needed"]
        headers = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")]
        # nginx would hold events back until it has some kilobytes.
        headers.append(("X-Accel-Buffering", "no"))
        start_response("200 OK", headers)
        return copy(title, pages, environ["browser"])
    start_response("404 Not Found", [("Content-Type", "text/plain")])
    return [b"there is no such page"]


def copy(title, pages, browser):
    """Yield the events of one job, until it has ended or the browser is gone."""
    try:
        # A job that says nothing for half a minute hangs.
        stream = client.stream(wait_for_server=2, idle_timeout=30).copy_book(title, pages)
        with stream:
            # Noticed now, and not only when the next event cannot be sent.
            watching = gevent.spawn(close_with, browser, stream)
            try:
                for step in stream:
                    yield event("step", step)
            finally:
                watching.kill()
        yield event("end", stream.result)
    except AmphoraError as error:
        yield event("failed", str(error))


def event(kind, value):
    """Return one server-sent event."""
    return f"event: {kind}\ndata: {json.dumps(value)}\n\n".encode()


def close_with(browser, stream):
    """Close a stream when its browser hangs up."""
    try:
        socket.wait_read(browser.fileno())
        hung_up = browser.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        hung_up = True
    if hung_up:
        stream.close()


class Handler(WSGIHandler):
    """Hands the application the browser's socket, beside the request."""

    def get_environ(self):
        return {**super().get_environ(), "browser": self.socket}


def main():
    parser = argparse.ArgumentParser(description="The web server of the progress example.")
    parser.add_argument("--port", type=int, default=8003, help="0 takes any that is free")
    port = parser.parse_args().port
    http = WSGIServer(("127.0.0.1", port), application, handler_class=Handler, log=None)
    try:
        http.start()
    except OSError as error:
        sys.exit(f"The web server cannot listen on port {port}: {error.strerror}")
    print(f"The page is on http://127.0.0.1:{http.server_port}", flush=True)

    ended = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, ended.set)
    ended.wait()
    http.stop(timeout=0)
    client.close()


if __name__ == "__main__":
    main()
