import os

from amphora import AmqpRpcServer, exposed


class Numbers:
    @exposed
    def double(self, number):
        return 2 * number


def make_server():
    server = AmqpRpcServer(os.environ.get("NAMESPACE", "numbers"), concurrency=20)
    server.add_service(Numbers(), prefix="")
    return server
