import time

import gevent

from amphora import AmqpRpcServer, current, shield

server = AmqpRpcServer("cancelling")
accounts = {"alice": 10, "bob": 0}


@server.add_function
def left():
    return current().remaining()


@server.add_function(cancellable=True)
def search(text):
    began = time.monotonic()
    try:
        gevent.sleep(60)  # stands for work that waits
        return f"found {text}"
    finally:
        print(f"looked for {text} for {time.monotonic() - began:.1f} s")


@server.add_function(cancellable=True)
def move(amount):
    gevent.sleep(1)  # it may be cancelled here, ...
    with shield():  # ... and not here
        accounts["alice"] -= amount
        gevent.sleep(1)
        accounts["bob"] += amount
    return accounts


@server.add_function(cancellable=True, threadpool=True)
def count_primes(below):
    count = 0
    for number in range(2, below):
        if current().cancelled:
            break
        count += all(number % divisor for divisor in range(2, number))
    return count


server.run()
