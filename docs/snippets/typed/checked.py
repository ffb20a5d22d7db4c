from typing import Protocol

from amphora import AmqpRpcClient, WrongRequest


class OlderAPI(Protocol):
    def find(self, name: str) -> str: ...


people = AmqpRpcClient("typed-people").bind(OlderAPI, check=True, wait_for_server=10.0)
try:
    people.call.find("Alice")
except WrongRequest as error:
    print(error)
    # OlderAPI is not what typed-people offers: find: the result is Person, and not string
