import gevent

import amphora
from amphora import AmqpRpcServer
from amphora.stores import SqliteStore

server = AmqpRpcServer("reports")
server.middleware(amphora.idempotent(SqliteStore("reports.db")))


@server.add_function(cancellable=True, concurrency=4)
def report(month: str) -> str:
    gevent.sleep(0.2)  # stands for work of half an hour
    return f"{month} was a good month"


@server.add_function
def report_step_by_step(month: str):
    for day in range(1, 31):
        gevent.sleep(0.01)  # stands for the work of one day
        yield {"day": day, "of": 30}
    return f"{month} was a good month"


server.run()
