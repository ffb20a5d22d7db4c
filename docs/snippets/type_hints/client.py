from datetime import date

from amphora import AmqpRpcClient, WrongRequest

client = AmqpRpcClient("type-hints")
alice = {"name": "Alice", "born": "1990-05-17"}
print(client.call.age(alice, date(2026, 1, 1)))  # 35

try:
    client.call.age(alice, on="yesterday")
except WrongRequest as error:
    print(error)
    # age: argument 'on': Invalid RFC3339 encoded date; it takes (user: User, on: datetime.date)
