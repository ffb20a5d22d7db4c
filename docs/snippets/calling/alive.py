from amphora import AmqpRpcClient, ServerLost

client = AmqpRpcClient("calling")
try:
    print(client.call(timeout=600, liveness=5.0).add(1, 2))  # 3
except ServerLost:
    raise SystemExit("its worker died") from None
