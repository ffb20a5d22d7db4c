from amphora import AmqpRpcServer

server = AmqpRpcServer("lock")
opened = []


@server.add_function(ack="early")
def open_the_gate(boat: str) -> str:
    opened.append(boat)
    return f"{boat} may pass"


server.run()
