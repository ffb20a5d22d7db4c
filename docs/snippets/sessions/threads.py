from threading import Thread

import gevent

from amphora import AmqpRpcClient, AmqpRpcServer

server = AmqpRpcServer("threads")
server.add_function(sum)
server.serve()


def job():
    try:
        with AmqpRpcClient("threads") as client:
            print(client.call.sum([1, 2]))  # 3
    finally:
        # What is left to be done in this thread, and then the end of its event loop.
        gevent.wait(timeout=1)
        gevent.get_hub().destroy(destroy_loop=True)


thread = Thread(target=job)
thread.start()
while thread.is_alive():
    gevent.sleep(0.01)
