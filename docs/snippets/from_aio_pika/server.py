from amphora import AmqpRpcServer

server = AmqpRpcServer("shop")


@server.add_function
def total(prices, discount=0):
    return sum(prices) * (100 - discount) / 100


server.run()
