from amphora import AmqpRpcServer

server = AmqpRpcServer("shop")


@server.add_function
def total(prices):
    return sum(prices)


server.run()
