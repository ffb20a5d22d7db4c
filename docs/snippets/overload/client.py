from amphora import AmqpRpcClient, Busy

client = AmqpRpcClient("overload")

try:
    print(client.call(timeout=5.0).square(3))  # 9
except Busy as busy:
    raise SystemExit(f"come again in {busy.retry_after} s") from None

# Or have it made again, while its five seconds last.
print(client.call(timeout=5.0, retries=3).square(4))  # 16
