"""A gateway in a web server of one's own, behind a login of one's own."""

import os

from gevent.pywsgi import WSGIServer

from amphora.gateway import Gateway, Handler

KEYS = {"k1": "alice", "k2": "bob"}
# Who may call what.
MAY_CALL = {"alice": ("/math/",), "bob": ("/math/sum_numbers",)}

gateway = Gateway("math", functions=["math.sum_numbers", "math.hypotenuse"])


def application(environ, start_response):
    user = KEYS.get(environ.get("HTTP_X_API_KEY", ""))
    if user is None or not environ["PATH_INFO"].startswith(MAY_CALL[user]):
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"no\n"]
    return gateway(environ, start_response)


if __name__ == "__main__":
    address = ("127.0.0.1", int(os.environ.get("PORT", "8080")))
    server = WSGIServer(address, application, log=None, handler_class=Handler)
    server.start()
    print("ready", flush=True)
    server.serve_forever()
