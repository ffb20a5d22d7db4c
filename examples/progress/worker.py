"""A worker with a long job, which tells how far it is.

    python examples/progress/worker.py

Needs a broker: the one that AMQP_URL names, or a RabbitMQ on this machine.  Start several of it,
and they share the jobs.
"""

import random
from typing import Annotated

import gevent
from msgspec import Meta

from amphora import AmqpRpcServer

server = AmqpRpcServer("progress")


@server.add_function
def copy_book(
    title: Annotated[str, Meta(min_length=1, max_length=60)],
    pages: Annotated[int, Meta(ge=1, le=10_000)],
):
    """Copy a book page by page; yield how far it is, and return how many words it has."""
    print(f"{title}: begun", flush=True)
    words = done = 0
    try:
        for page in range(1, pages + 1):
            gevent.sleep(0.05)  # stands for work
            on_page = random.randint(200, 400)
            words += on_page
            yield {"page": page, "of": pages, "line": f"page {page} has {on_page} words"}
            done = page
        return words
    finally:
        # Also when nobody reads the stream any more.
        how = "done" if done == pages else f"given up on page {done + 1}"
        print(f"{title}: {how}", flush=True)


if __name__ == "__main__":
    server.run()
