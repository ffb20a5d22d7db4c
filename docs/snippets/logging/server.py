from amphora import AmqpRpcServer


class NotFound(Exception):
    pass


orders = {17: "a bicycle"}
server = AmqpRpcServer("orders")


@server.add_function(expected=(NotFound,))
def find(number: int) -> str:
    if number not in orders:
        raise NotFound(number)
    return orders[number]


if __name__ == "__main__":
    server.run()
