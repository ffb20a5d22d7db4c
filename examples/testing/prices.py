from amphora import AmqpRpcServer

CENTS = {"apple": 30, "pear": 45}


def total(order: dict[str, int]) -> int:
    return sum(CENTS[fruit] * count for fruit, count in order.items())


if __name__ == "__main__":
    server = AmqpRpcServer("prices")
    server.add_function(total)
    server.run()
