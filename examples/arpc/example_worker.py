"""The worker of arpc's page: only the import has changed.

python example_worker.py
"""

from amphora.arpc import mq


class ExampleService(object):  # noqa: UP004 (as on arpc's page)
    def c_add(self, req):
        return {"res": req["x"] + req["y"]}


# Uses default connection parameters (AMQP_URL, or this machine)
amqp = mq.AMQPOperations(useack=True, persistent=True)
server = mq.make_json_server(amqp, "example", ExampleService())
server.loop()
