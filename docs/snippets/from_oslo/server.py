from amphora import AmqpRpcServer, current

server = AmqpRpcServer("shop")


@server.add_function
def total(prices):
    return sum(prices)


@server.add_function
def buyer():
    return current().headers["user"]


server.run()
