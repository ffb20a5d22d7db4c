import amphora
from amphora import AmqpRpcClient

client = AmqpRpcClient("calling")
results = [client.defer.sleep(seconds) for seconds in (0.3, 0.1, 0.2)]
print([result.get() for result in amphora.iwait(results)])  # [0.1, 0.2, 0.3]
