import gevent

from amphora import AmqpRpcClient, Cancelled

client = AmqpRpcClient("cancelling")
client.call.left()  # the connection is there, and so is a server
result = client.defer.search("tea")
gevent.sleep(1)
print(result.cancel())  # True
try:
    result.get()
except Cancelled as error:
    print(error)  # cancelling.search was cancelled
    print(error.executed)  # None

try:
    with gevent.Timeout(1):
        client.call.search("coffee")  # is cancelled too
except gevent.Timeout:
    print("the time is over")  # the time is over
