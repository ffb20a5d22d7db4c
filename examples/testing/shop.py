from amphora import AmqpRpcClient


def sell(order: dict[str, int], mail: str) -> str:
    """Sell fruits: ask for their price, and have a mail sent."""
    with AmqpRpcClient("prices") as prices, AmqpRpcClient("mails") as mails:
        cents = prices.call(timeout=60).total(order)
        mails.cast.send(mail, text=f"{cents / 100:.2f} please")
    return f"{cents / 100:.2f}"
