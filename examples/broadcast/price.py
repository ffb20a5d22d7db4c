"""Ask for a price: `python examples/broadcast/price.py tea`."""

import sys

from amphora import AmqpRpcClient

if len(sys.argv) != 2:
    sys.exit(__doc__)
with AmqpRpcClient("shop") as shop:
    print(shop.call.price(sys.argv[1]))
