from amphora import AmphoraError, AmqpRpcClient

client = AmqpRpcClient("calling")


def pay(account, amount):
    try:
        return client.call(timeout=5).pay(account, amount)
    except AmphoraError as error:
        if error.executed is False:
            return "not paid, and safe to try again"
        raise  # it may have been paid: look before you try again


print(pay("alice", 10))  # not paid, and safe to try again
