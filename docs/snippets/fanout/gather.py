from amphora import AmqpRpcFanoutClient, AmqpRpcFanoutServer, IgnoreRequest, Session

session = Session()


def thermometer(room, degrees):
    server = AmqpRpcFanoutServer("thermometers", session=session)

    @server.add_function
    def measure():
        return degrees

    @server.add_function
    def rooms_above(limit):
        if degrees <= limit:
            raise IgnoreRequest
        return room

    @server.add_function
    def battery():
        if degrees < 15:
            raise RuntimeError(f"the battery in the {room} is empty")
        return "full"

    server.serve()


thermometer("kitchen", 21)
thermometer("cellar", 12)
thermometer("attic", 25)

client = AmqpRpcFanoutClient("thermometers", session=session)

# All answers, in the order of their arrival.
print(sorted(client.gather().measure().values()))  # [12, 21, 25]

# Whoever ignores a request sends no answer, and is not waited for.
print(sorted(client.gather().rooms_above(20).values()))  # ['attic', 'kitchen']

# One by one, as they come; a server that fails does not hide the others.
for reply in client.gather(timeout=5.0).battery():
    if reply.error:
        print(reply.error)  # RuntimeError: the battery in the cellar is empty

# The first answer that comes.
print(client.call.measure() in (12, 21, 25))  # True

session.close()
