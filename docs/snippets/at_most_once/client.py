from amphora import AmqpRpcClient, ServerLost

client = AmqpRpcClient("lock")
try:
    print(client.call(liveness=2.0).open_the_gate("Argo"))  # Argo may pass
except ServerLost:
    raise SystemExit("go and look at the gate") from None
