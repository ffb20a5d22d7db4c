import time

import gevent

from amphora import AmqpRpcServer, current

server = AmqpRpcServer("streams")
SALES = [("tea", 10), ("coffee", 25), ("tea", 7)]
clocks = set()


@server.add_function
def sales(year: int):
    for what, paid in SALES:
        yield {"what": what, "paid": paid}
    return f"{len(SALES)} sales in {year}"


@server.add_function
def clock(every: float):
    clocks.add(current().id)
    try:
        while True:
            yield time.strftime("%X")
            gevent.sleep(every)
    finally:
        clocks.remove(current().id)


@server.add_function
def clocks_that_run():
    return len(clocks)


@server.add_function
def lines(text: str):
    for number, line in enumerate(text.splitlines()):
        yield float(line)
        print(f"line {number} was taken, or is on its way")


@server.add_function(resumable=True)
def sales_since(first: int):
    for what, paid in SALES[first + current().after :]:
        yield {"what": what, "paid": paid}


@server.add_function
def restart():  # as when a new version is put in place
    gevent.spawn(server.stop, timeout=0.5)


server.run()
