from amphora import AmqpRpcServer, exposed


class Shop:
    @exposed
    def total(self, prices):
        return sum(prices)

    @exposed
    def countdown(self, seconds):
        yield from range(seconds, 0, -1)


server = AmqpRpcServer("shop")
server.add_service(Shop(), prefix="")
server.run()
