from amphora import AmqpRpcClient

client = AmqpRpcClient("doors")
client.create_new_request_queue("front door")
print(client.call(routing_key="front door").ring("Bob"))  # Bob rings at the front door
client.remove_request_queue("front door")
