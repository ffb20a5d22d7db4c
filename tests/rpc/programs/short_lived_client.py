"""A client that waits for an answer, with a response queue that expires after half a second."""

import sys

from amphora import AmqpRpcClient
from amphora.rpc.client import response_queue

response_queue.EXPIRES = 0.5
url, namespace = sys.argv[1:3]
client = AmqpRpcClient(namespace, url=url)
result = client.defer.hold("never seen")
client.call.add(1, 2)
print("client", client.client_id)
result.get()
