from datetime import date

from people import PeopleAPI

from amphora import AmqpRpcClient

people = AmqpRpcClient("typed-people").bind(PeopleAPI)

alice = people.call.find("Alice")
assert alice is not None
print(alice.born.year)  # 1990

result = people.defer(PeopleAPI.age)(alice, on=date(2026, 1, 1))
print(result.get())  # 35

for person in people.stream(PeopleAPI.everybody)():
    print(person.name)  # Alice

print(people.options(timeout=5.0).call.find("Bob"))  # None
