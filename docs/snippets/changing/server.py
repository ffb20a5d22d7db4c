from amphora import AmqpRpcServer

server = AmqpRpcServer("shop")


@server.add_function
@server.add_function("price")  # its name of before
def net_price(article: str, country: str = "de") -> dict[str, object]:
    return {"net": 10, "country": country}


server.run()
