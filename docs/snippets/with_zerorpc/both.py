import zerorpc

from amphora import AmqpRpcServer


class Shop:
    def total(self, prices):
        return sum(prices)

    def count_down(self, seconds):
        yield from range(seconds, 0, -1)

    countdown = zerorpc.stream(count_down)


shop = Shop()
amphora_server = AmqpRpcServer("shop")
amphora_server.add_function(shop.total)
amphora_server.add_function(shop.count_down, "countdown")
amphora_server.serve()

zerorpc_server = zerorpc.Server(shop)
zerorpc_server.bind("tcp://127.0.0.1:4242")
zerorpc_server.run()
