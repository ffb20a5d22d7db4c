from amphora import AmqpRpcServer


class NotForSale(Exception):
    pass


server = AmqpRpcServer("shop")


@server.add_function(expected=(NotForSale,))
def total(prices: list[int]) -> int:
    if 0 in prices:
        raise NotForSale("one of them has no price")
    return sum(prices)


@server.add_function
def countdown(seconds: int):
    yield from range(seconds, 0, -1)


server.run()
