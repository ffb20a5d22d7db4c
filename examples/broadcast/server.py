"""A shop's server: it keeps the prices that it was asked for in memory.

    echo '{"tea": 3.5, "coffee": 5}' > prices.json
    python examples/broadcast/server.py prices.json

Start some of it, in different terminals.
"""

import json
import sys
from pathlib import Path

from amphora import AmqpRpcFanoutServer, AmqpRpcServer, IgnoreRequest, Session

if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
    sys.exit(__doc__)
PRICES = Path(sys.argv[1])  # stands for a database
cache = {}

session = Session()
# What one of the servers does ...
server = AmqpRpcServer("shop", session=session)
# ... and what all of them do.
member = AmqpRpcFanoutServer("shop.cache", session=session)


@server.add_function
def price(item):
    if item not in cache:
        cache[item] = json.loads(PRICES.read_text())[item]
    return cache[item]


@member.add_function
def forget(item):
    if item not in cache:
        raise IgnoreRequest
    return cache.pop(item)


@member.add_function
def cached():
    return cache


# In this order: what is remembered was read when changes were told here already.
member.serve()
print(f"{member.worker_id} serves", flush=True)
server.run()
member.stop()
session.close()
