"""Many calls from many greenlets: `caller.py URL NAMESPACE CALLS GREENLETS [SECONDS UNTIL]`.

Each call is `add` of two numbers, or with SECONDS `slow_add`, which takes so long; with UNTIL it
makes more calls until there is a file of that name.  It logs each change of its connections, and
ends by telling what became of each.
"""

import collections
import itertools
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import gevent

from amphora import AmphoraError, AmqpRpcClient

logging.basicConfig(level=logging.INFO)
url, namespace = sys.argv[1:3]
calls, greenlets = int(sys.argv[3]), int(sys.argv[4])
seconds = float(sys.argv[5]) if len(sys.argv) > 5 else None
until = Path(sys.argv[6]) if len(sys.argv) > 6 else None

client = AmqpRpcClient(namespace, url=url)
ended: collections.Counter[str] = collections.Counter()


def some_numbers() -> Iterator[int]:
    for n in itertools.count():
        if n >= calls and (until is None or until.exists()):
            return
        yield n


numbers = some_numbers()


def call() -> None:
    for n in numbers:
        try:
            if seconds is None:
                answer = client.call.add(n, 1)
            else:
                answer = client.call.slow_add(n, 1, seconds)
            ended["right" if answer == n + 1 else "wrong"] += 1
        except AmphoraError as error:
            ended[type(error).__name__] += 1
        if ended.total() % 500 == 0:
            print("ended", ended.total())


print("calling")
gevent.joinall([gevent.spawn(call) for _ in range(greenlets)], raise_error=True)
print("pending", client.pending)
print("connects", client.session.publishing.connects, client.session.consuming.connects)
client.close()
print("result", json.dumps(ended))
