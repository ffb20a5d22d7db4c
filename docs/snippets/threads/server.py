from amphora import AmqpRpcServer

server = AmqpRpcServer("threads")


@server.add_function(threadpool=True)
def count_primes(below):
    return sum(all(n % d for d in range(2, n)) for n in range(2, below))


server.run()
