import gevent

from amphora import AmqpRpcServer, current

server = AmqpRpcServer("wire")


@server.add_function
def add(x, y):
    return x + y


@server.add_function
def about_the_call():
    call = current()
    return {"trace": call.headers["trace"], "left": call.remaining()}


@server.add_function(cancellable=True)
def sleep(seconds):
    gevent.sleep(seconds)


@server.add_function
def cancelled():
    return server.statistics.cancelled


@server.add_function
def count(most):
    yield from range(most)
    return "that was all"


server.run()
