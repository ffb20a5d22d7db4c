from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from amphora import AmqpRpcClient

client = AmqpRpcClient("serializers")


@dataclass
class Point:
    x: int
    y: int


print(client.call.echo(date(2026, 1, 31)))  # 2026-01-31
print(client.call.echo(datetime(2026, 1, 31, 12, 30)))  # 2026-01-31T12:30:00
print(client.call.echo(Decimal("1.10")))  # 1.10
print(client.call.echo(UUID(int=1)))  # 00000000-0000-0000-0000-000000000001
print(client.call.echo(b"\x00\xff"))  # AP8=
print(client.call.echo(Point(1, 2)))  # {'x': 1, 'y': 2}
print(client.call.echo((1, {2})))  # [1, [2]]
