from amphora import AmqpRpcServer

server = AmqpRpcServer("math")


@server.add_function
def sum_numbers(*args):
    return sum(args)


@server.add_function
def mean(*args):
    return sum(args) / len(args)


server.run()
