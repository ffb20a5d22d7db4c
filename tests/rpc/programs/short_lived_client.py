"""A client that waits for an answer, with a response queue that expires after half a second."""

import sys

import amphora.rpc.client
from amphora import AmqpRpcClient

amphora.rpc.client.RESPONSE_QUEUE_EXPIRES_MS = 500
url, namespace = sys.argv[1:3]
client = AmqpRpcClient(namespace, url=url)
result = client.defer.hold("never seen")
client.call.add(1, 2)
print("client", client.client_id)
result.get()
