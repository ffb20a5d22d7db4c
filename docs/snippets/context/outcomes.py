from gevent.queue import Queue

from amphora import AmqpRpcClient

client = AmqpRpcClient("context")
ended = Queue()


@client.use
def watch(call, proceed):
    call.when_done(lambda outcome: ended.put(f"{call.mode} {call.function}: {outcome.status}"))
    return proceed()


client.call.greet()
print(ended.get())  # call greet: OK
result = client.defer.refund("order 17")
print(ended.get())  # defer refund: Denied
