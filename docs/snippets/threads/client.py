from amphora import AmqpRpcClient

client = AmqpRpcClient("threads")
print(client.call.count_primes(1000))  # 168
