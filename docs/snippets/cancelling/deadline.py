import amphora

client = amphora.AmqpRpcClient("cancelling")
with amphora.deadline(10):
    print(client.call.left() <= 10)  # True
    print(client.call(timeout=5).left() <= 5)  # True
    print(client.call(timeout=30).left() <= 10)  # True
    print(client.call(timeout=30, inherit_deadline=False).left() > 20)  # True
