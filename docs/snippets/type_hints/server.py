from dataclasses import dataclass
from datetime import date

from amphora import AmqpRpcServer

server = AmqpRpcServer("type-hints")


@dataclass
class User:
    name: str
    born: date


@server.add_function
def age(user: User, on: date) -> int:
    had_birthday = (on.month, on.day) >= (user.born.month, user.born.day)
    return on.year - user.born.year - (not had_birthday)


server.run()
