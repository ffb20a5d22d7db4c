import zerorpc


class Shop:
    def total(self, prices):
        return sum(prices)

    @zerorpc.stream
    def countdown(self, seconds):
        yield from range(seconds, 0, -1)


server = zerorpc.Server(Shop())
server.bind("tcp://127.0.0.1:4242")
server.run()
