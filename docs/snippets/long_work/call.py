from amphora import AmqpRpcClient, ServerLost

client = AmqpRpcClient("reports")
result = client.defer(timeout=3600, liveness=10.0).report("May")
# ... do something else, or call result.cancel() ...
try:
    print(result.get())  # May was a good month
except ServerLost:
    raise SystemExit("its worker died") from None
