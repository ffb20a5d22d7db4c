import asyncio

from amphora import AmqpRpcClient

client = AmqpRpcClient("mistakes")


def add(a, b):
    with AmqpRpcClient("mistakes") as another:
        return another.call.add(a, b)


async def main():
    try:
        client.call.add(1, 2)
    except RuntimeError as error:
        print(type(error).__name__)  # RuntimeError
    print(await asyncio.to_thread(add, 1, 2))  # 3


asyncio.run(main())
