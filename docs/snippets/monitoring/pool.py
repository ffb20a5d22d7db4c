import os

from amphora import AmqpRpcClient
from amphora.observe.exposition import exposition
from amphora.observe.metrics import of_process
from amphora.observe.pool import Pool, decode, encode

client = AmqpRpcClient("weather")
of_process.watch(client)
client.call.temperature("Oslo")
line = encode(of_process.snapshot())  # in each process, from time to time

pool = Pool()
pool.report(os.getpid(), decode(line))  # where all of them are heard
pool.gone(os.getpid())  # when one has ended: what it has counted stays
print(b"rpc_client_call_duration_seconds_count" in exposition(pool.snapshot()))  # True
