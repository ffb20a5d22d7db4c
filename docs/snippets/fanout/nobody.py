from amphora import AmqpRpcFanoutClient, Unroutable

client = AmqpRpcFanoutClient("barometers")
print(client.gather().measure().values())  # []
try:
    client.call.measure()
except Unroutable as error:
    print(error)  # barometers has no request queue: no server is there
