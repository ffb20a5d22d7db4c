from amphora import AmqpRpcClient

job = "report-2026-05"  # is written down before it is asked for

with AmqpRpcClient("reports") as client:
    client.cast(key=job, wait_publish=True).report("May")

# An hour later, or after a restart, or in another program:
with AmqpRpcClient("reports") as client:
    print(client.call(key=job, timeout=3600).report("May"))  # May was a good month
