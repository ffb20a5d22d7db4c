from threading import Thread

from amphora import AmqpRpcClient

client = AmqpRpcClient("mistakes")
print(client.call.add(1, 2))  # 3


def elsewhere():
    try:
        client.call.add(1, 2)
    except RuntimeError as error:
        print(type(error).__name__)  # RuntimeError
    with AmqpRpcClient("mistakes") as another:
        print(another.call.add(3, 4))  # 7


thread = Thread(target=elsewhere)
thread.start()
thread.join()
