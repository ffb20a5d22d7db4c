from collections.abc import Iterator
from datetime import date

from people import PeopleAPI, Person

from amphora import AmqpRpcServer

ALICE = Person("Alice", date(1990, 5, 17))


class People:
    def find(self, name: str) -> Person | None:
        return ALICE if name == "Alice" else None

    def age(self, person: Person, on: date) -> int:
        had_birthday = (on.month, on.day) >= (person.born.month, person.born.day)
        return on.year - person.born.year - (not had_birthday)

    def everybody(self) -> Iterator[Person]:
        yield ALICE


server = AmqpRpcServer("typed-people")
server.add_service(People(), api=PeopleAPI)
server.run()
