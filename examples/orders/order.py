import sys

from amphora import AmqpRpcClient, WrongRequest

if len(sys.argv) != 4:
    sys.exit("usage: python examples/orders/order.py KEY WHAT PIECES")

key, what, pieces = sys.argv[1:]
client = AmqpRpcClient("orders")
try:
    # The program that takes the customer's order has made the key up, and has written it down.
    number = client.call(key=key, retries=3).order(what, int(pieces))
except WrongRequest as error:
    sys.exit(f"not ordered: {error}")
print(f"order {number}")
client.close()
