from gevent.event import AsyncResult

from amphora import AmqpRpcClient

client = AmqpRpcClient("reports")
ended = AsyncResult()


@client.use
def watch(call, proceed):
    call.when_done(lambda outcome: ended.set(f"{call.function}: {outcome.status}"))
    return proceed()


result = client.defer(timeout=3600).report("May")
print(ended.get())  # report: OK
print(result.get())  # May was a good month
