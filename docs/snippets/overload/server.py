from amphora import AmqpRpcServer

server = AmqpRpcServer("overload", max_wait=2.0)


@server.add_function
def square(number):
    return number * number


server.serve(nowait=False)
