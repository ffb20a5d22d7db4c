from amphora import AmqpRpcClient, Denied

client = AmqpRpcClient("context", identify=True)
print(client.call.greet())  # Hello, guest
print(client.call(headers={"language": "fr"}).greet())  # Bonjour, guest


@client.use
def in_french(call, proceed):
    call.headers["language"] = "fr"
    return proceed()


print(client.call.greet_twice())  # ['Bonjour, guest', 'Bonjour, guest']

try:
    client.call.refund("order 17")
except Denied as error:
    print(error)  # guest may not call context.refund
    print(error.executed)  # False
