"""A server that can be run as a script as well, without a guard."""

import os

from amphora import AmqpRpcServer

server = AmqpRpcServer(os.environ["SERVICE_NAMESPACE"])


@server.add_function
def pid() -> int:
    return os.getpid()


server.serve(nowait=False)
