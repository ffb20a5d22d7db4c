from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Protocol


@dataclass
class Person:
    name: str
    born: date


class PeopleAPI(Protocol):
    def find(self, name: str) -> Person | None: ...

    def age(self, person: Person, on: date) -> int: ...

    def everybody(self) -> Iterator[Person]: ...
