from amphora import AmqpRpcServer

server = AmqpRpcServer("price-list")
prices = {}


@server.add_function(idempotent=True)
def set_price(what, price):
    prices[what] = price
    return len(prices)


server.run()
