"""Change a price: `python examples/broadcast/set_price.py prices.json tea 4.20`."""

import json
import sys
from pathlib import Path

from amphora import AmqpRpcFanoutClient

if len(sys.argv) != 4:
    sys.exit(__doc__)
path, item, price = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
path.write_text(json.dumps({**json.loads(path.read_text()), item: price}))

with AmqpRpcFanoutClient("shop.cache") as members:
    for reply in members.gather(timeout=2.0).forget(item):
        if reply.error:
            print(f"{reply.worker} may still sell at the old price: {reply.error}")
        else:
            print(f"{reply.worker} has forgotten {reply.value}")
