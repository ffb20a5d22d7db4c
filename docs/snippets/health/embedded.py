from urllib.request import urlopen

from gevent import get_hub
from gevent.pywsgi import WSGIServer

from amphora import AmqpRpcServer
from amphora.observe.health import health


def ask(question: str) -> str:
    with urlopen(f"http://127.0.0.1:{web.server_port}/{question}") as answer:
        return answer.read().decode().strip()


with AmqpRpcServer("health") as server:
    server.serve()
    server.session.consuming.wait_until(lambda: server.ready)
    web = WSGIServer(("127.0.0.1", 0), health(server), log=None)
    web.start()
    # A thread asks: urlopen would hold the event loop that is to answer.
    in_thread = get_hub().threadpool.apply
    print(in_thread(ask, ["livez"]))  # the event loop runs
    print(in_thread(ask, ["readyz"]))  # 1 of 1 servers take requests
    web.stop()
