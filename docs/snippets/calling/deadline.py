from amphora import AmqpRpcClient, NoResult

client = AmqpRpcClient("calling")
client.call.add(1, 2)  # the connection is there, and so is a server
try:
    client.call(timeout=2.0).sleep(60)
except NoResult as error:
    print(error)
    # no result of calling.sleep within 2 s: calling is served; the request is queued or running
    print(error.executed)  # None
