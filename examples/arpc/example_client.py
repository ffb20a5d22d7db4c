"""The client of arpc's page: only the import has changed.

python example_client.py
"""

from amphora.arpc import mq

sc = mq.ServiceCaller(mq.AMQPOperations(useack=True, persistent=True), "example", want_replies=True)
res = sc.send_request({"c": "add", "x": 4, "y": 8})
print(res)

# Lazy requests are sent together, and waited for when their results are needed.
lazy = [sc.send_lazy_request({"c": "add", "x": n, "y": n}) for n in range(3)]
print([result.get() for result in lazy])
