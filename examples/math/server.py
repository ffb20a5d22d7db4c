from math import sqrt

from amphora import AmqpRpcServer

server = AmqpRpcServer("math")


@server.add_function
def sum_numbers(*args):
    return sum(args)


@server.add_function
def hypotenuse(cathetus1, cathetus2):
    return sqrt(cathetus1**2 + cathetus2**2)


server.run()
