from typing import Protocol

import amphora
from amphora import AmqpRpcClient


class PeopleInOtherWords(Protocol):
    @amphora.function_name("find")
    def look_up(self, name: str) -> dict[str, str] | None: ...


people = AmqpRpcClient("typed-people").bind(PeopleInOtherWords)
print(people.call.look_up("Alice"))  # {'name': 'Alice', 'born': '1990-05-17'}
