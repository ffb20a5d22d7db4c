from amphora import AmqpRpcClient

client = AmqpRpcClient("doors")
client.create_new_request_queue("front door")


@client.tune_function("ring")
def to_the_front_door(args, kwargs):
    return "front door"


print(client.call.ring("Bob"))  # Bob rings at the front door
client.remove_request_queue("front door")
