"""A child of multiprocessing whose last deed is a cast.

`multiprocessing_casts.py URL NAMESPACE METHOD WHERE`; the client is made in the parent, and used
there, or in the child.
"""

import multiprocessing
import os
import sys
import warnings
from typing import Any

from amphora import AmqpRpcClient
from amphora.transport import session

# As long as the broker of a busy machine may take for a confirm.
session.EXIT_TIMEOUT = float(os.environ.get("EXIT_TIMEOUT", session.EXIT_TIMEOUT))

# A greenlet of gevent's may count as a thread.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

url, namespace, method, where = sys.argv[1:5]
parents = None


def child(url: str, namespace: str) -> None:
    client = parents or AmqpRpcClient(namespace, url=url)
    for number in range(3):
        client.cast.note(number)


if __name__ == "__main__":
    if where == "parent":
        parents = AmqpRpcClient(namespace, url=url, timeout=20)
        parents.cast(wait_publish=True).note(0)
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=child, args=(url, namespace))
    process.start()
    process.join()
    print(f"child's exit code {process.exitcode}")
