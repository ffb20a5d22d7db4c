"""A server whose broker does not exist.  Arguments: a URL that is not used, and the namespace."""

import logging
import socket
import sys

from amphora import AmqpRpcServer

logging.basicConfig(stream=sys.stdout, level=logging.INFO)
with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else can begin to
    port = taken.getsockname()[1]
    AmqpRpcServer(sys.argv[2], amqp_port=port).serve(nowait=False)
