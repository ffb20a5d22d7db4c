from amphora import AmqpRpcClient, NoResult

client = AmqpRpcClient("streams")
try:
    for time in client.stream(idle_timeout=0.5).clock(60):
        now = time
except NoResult as error:
    print(error)  # no item of streams.clock within 0.5 s

times = client.stream(timeout=2, credit=5, wait_for_server=2).clock(0.2)
try:
    for time in times:
        now = time
except NoResult:
    print(times.received > 5)  # True
