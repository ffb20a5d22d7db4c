from amphora import AmqpRpcClient

client = AmqpRpcClient("streams")
rows = client.stream.sales(2026)
total = 0
for row in rows:
    total += row["paid"]
print(total)  # 42
print(rows.received)  # 3
print(rows.result)  # 3 sales in 2026
print([row["paid"] for row in client.stream.sales_since(1)])  # [25, 7]
