import gevent

from amphora import AmqpRpcClient

client = AmqpRpcClient("streams")


def wait_until_no_clock_runs():
    while client.call.clocks_that_run():
        gevent.sleep(0.05)


with client.stream.clock(0.1) as times:
    for _ in times:
        break
wait_until_no_clock_runs()  # the end of the block has ended it
print(times.received)  # 1


def first_of(stream):
    return next(stream)


print(len(first_of(client.stream.clock(0.1))))  # 8
wait_until_no_clock_runs()  # nobody held the stream any more
