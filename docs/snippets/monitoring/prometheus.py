import prometheus_client

from amphora import AmqpRpcClient
from amphora.observe.exposition import SnapshotCollector
from amphora.observe.metrics import of_process

prometheus_client.REGISTRY.register(SnapshotCollector(of_process.snapshot))

client = AmqpRpcClient("weather")
of_process.watch(client)
client.call.temperature("Oslo")
print("amphora_pending" in prometheus_client.generate_latest().decode())  # True
