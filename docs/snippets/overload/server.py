import gevent

from amphora import AmqpRpcServer

server = AmqpRpcServer("overload", max_wait=2.0)


@server.add_function
def square(number):
    return number * number


@server.add_function(concurrency=4, timeout=30.0)
def report(month):
    gevent.sleep(5)  # stands for a long question to the one database
    return f"{month} was a good month"


server.run()
