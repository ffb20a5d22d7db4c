from amphora import AmqpRpcClient

# Made with the module, as in a web application.
prices = AmqpRpcClient("prices", timeout=5.0)


def receipt(order: dict[str, int]) -> str:
    return f"{prices.call.total(order) / 100:.2f} euros"
