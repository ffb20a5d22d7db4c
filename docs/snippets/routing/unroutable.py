from amphora import AmqpRpcClient, Unroutable

client = AmqpRpcClient("doors")
try:
    client.call(routing_key="cellar door").ring("Bob")
except Unroutable as error:
    print(error)
    # no request queue of doors takes the key 'cellar door'; create_new_request_queue makes one
    print(error.executed)  # False
