"""Ask the shop for something and change your mind; then ask for something with little time.

    python examples/chain/client.py

Needs the three services of service.py.
"""

import gevent

from amphora import AmqpRpcClient, Cancelled, NoResult

with AmqpRpcClient("chain.shop") as shop:
    result = shop.defer.find("tea")
    gevent.sleep(2)
    result.cancel()
    try:
        result.get()
    except Cancelled as error:
        print(error)

    try:
        shop.call(timeout=2).find("coffee")
    except NoResult as error:
        print(error)
