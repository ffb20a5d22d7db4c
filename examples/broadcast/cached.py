"""See what each server has in memory: `python examples/broadcast/cached.py`."""

from amphora import AmqpRpcFanoutClient

with AmqpRpcFanoutClient("shop.cache") as members:
    for reply in members.gather(timeout=2.0).cached():
        print(f"{reply.worker} {reply.get()}")
