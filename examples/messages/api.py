"""An API server: it talks to browsers.

    python examples/messages/api.py --port 8001 --others 8002

When it is gone, its pages go on at one of the others.
Users sign in by name alone, so this is for trying out, not for the open internet.
"""

import argparse
import json
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

import gevent
import handlers
from gevent import socket
from gevent.event import Event
from gevent.pywsgi import WSGIHandler, WSGIServer

from amphora import AmphoraError

PAGE = Path(__file__).with_name("page.html")
LONG_POLL = 25.0  # seconds; proxies tend to cut what is silent for longer
LARGEST_BODY = 64 * 1024
LONGEST_NAME = 40
# The ports of the other API servers on this machine.
others = []


class BadRequest(Exception):
    """The browser sent what no page of ours sends."""


# -- what a page can ask ------------------------------------------------------------------------


def sign_in(asked, browser):
    username = text_of(asked, "username", LONGEST_NAME)
    handlers.core.call.sign_in(username)
    return {"username": username}


def send(asked, browser):
    known = handlers.core.call.send(
        text_of(asked, "username", LONGEST_NAME),
        text_of(asked, "to", LONGEST_NAME),
        text_of(asked, "text", 2000),
        message_id=text_of(asked, "id", 64),
    )
    return {"known": known}


def poll(asked, browser):
    """Wait for the next message."""
    page = handlers.page_of(text_of(asked, "username", LONGEST_NAME), text_of(asked, "page", 64))
    # A browser that goes away is noticed now, not only when its next message cannot be sent.
    watching = gevent.spawn(close_with, browser, page)
    try:
        return {"message": page.poll(asked.get("seen"), LONG_POLL)}
    finally:
        watching.kill()


def where_else(asked, browser):
    """Tell the page where it can go on when this server is gone."""
    return {"others": others}


ACTIONS = {"/sign-in": sign_in, "/send": send, "/poll": poll, "/where-else": where_else}


def text_of(asked, name, longest):
    """Return a text from a request's body."""
    text = asked.get(name)
    if not isinstance(text, str) or not 0 < len(text.strip()) <= longest:
        raise BadRequest(f"{name} must be a text of 1 to {longest} characters")
    return text.strip()


def close_with(browser, page):
    """Close a page when its browser hangs up."""
    try:
        socket.wait_read(browser.fileno())
        hung_up = browser.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        hung_up = True
    if hung_up:
        page.close()


# -- HTTP ---------------------------------------------------------------------------------------


def application(environ, start_response):
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
    headers += welcome(environ.get("HTTP_ORIGIN", ""))

    def respond(status, answer):
        start_response(status, headers)
        return [json.dumps(answer).encode()]

    if (method, path) == ("GET", "/"):
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [PAGE.read_bytes()]
    if method != "POST" or path not in ACTIONS:
        return respond("404 Not Found", {"error": "there is no such page"})
    try:
        answer = ACTIONS[path](asked_in(environ), environ["browser"])
    except BadRequest as error:
        return respond("400 Bad Request", {"error": str(error)})
    except AmphoraError as error:
        return respond("503 Service Unavailable", {"error": str(error)})
    return respond("200 OK", answer)


def asked_in(environ):
    """Return the JSON object in a request's body."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > LARGEST_BODY:
        raise BadRequest("the request is too large")
    try:
        asked = json.loads(environ["wsgi.input"].read(length))
    except ValueError:
        raise BadRequest("the request is not JSON") from None
    if not isinstance(asked, dict):
        raise BadRequest("the request is not a JSON object")
    return asked


def welcome(origin):
    """Return the header that lets a page which came from another API server read the answer."""
    try:
        server = urlsplit(origin)
        known = server.hostname in ("127.0.0.1", "localhost") and server.port in others
    except ValueError:
        known = False
    return [("Access-Control-Allow-Origin", origin)] if known else []


class Handler(WSGIHandler):
    """Hands the application the browser's socket, beside the request."""

    def get_environ(self):
        return {**super().get_environ(), "browser": self.socket}


def main():
    parser = argparse.ArgumentParser(description="An API server of the messages example.")
    parser.add_argument("--port", type=int, default=8001, help="0 takes any that is free")
    parser.add_argument("--others", type=int, nargs="*", default=[], metavar="PORT")
    options = parser.parse_args()
    port = options.port
    others.extend(options.others)
    http = WSGIServer(("127.0.0.1", port), application, handler_class=Handler, log=None)
    try:
        http.start()
    except OSError as error:
        sys.exit(f"The API server cannot listen on port {port}: {error.strerror}")
    print(f"API server on http://127.0.0.1:{http.server_port}", flush=True)

    ended = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, ended.set)
    ended.wait()
    http.stop(timeout=0)
    for page in list(handlers.pages.values()):
        page.close()
    handlers.session.close()


if __name__ == "__main__":
    main()
