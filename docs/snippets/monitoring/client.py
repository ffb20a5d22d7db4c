from amphora import AmqpRpcClient
from amphora.observe.exposition import exposition
from amphora.observe.metrics import of_process

client = AmqpRpcClient("weather")
of_process.watch(client)
client.call.temperature("Oslo")
client.call.temperature("Rome")

for line in exposition(of_process.snapshot()).decode().splitlines():
    if line.startswith("rpc_client_call_duration_seconds_count"):
        labels, _, number = line.rpartition(" ")
        print(number)  # 2.0
