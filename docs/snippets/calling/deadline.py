from amphora import AmqpRpcClient, NoResult

client = AmqpRpcClient("calling")
try:
    client.call(timeout=0.5).sleep(60)
except NoResult as error:
    print(error)  # no result of calling.sleep within 0.5 s: the request is in the queue or running
    print(error.executed)  # None
