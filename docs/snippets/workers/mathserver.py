from amphora import AmqpRpcServer

server = AmqpRpcServer("math")


@server.add_function
def sum_numbers(*args):
    return sum(args)
