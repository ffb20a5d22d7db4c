from prices import total

from amphora import AmqpRpcClient, AmqpRpcServer
from amphora.testing import Broker, Calls, Clock

with (
    Clock() as clock,
    Broker() as broker,
    Calls() as calls,
    AmqpRpcServer("prices", url=broker.url) as server,
    AmqpRpcClient("prices", url=broker.url) as client,
):
    server.add_function(total)
    server.serve()
    client.cast.total({"apple": 2})
    broker.wait_until_served()
    print(calls)
    clock.advance(3600)
    assert client.call.total({"pear": 1}) == 45
