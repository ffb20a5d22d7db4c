from people_client import TypedPeopleClient

from amphora import AmqpRpcClient

people = TypedPeopleClient(AmqpRpcClient("typed-people"))
alice = people.call.find("Alice")
assert alice is not None
print(alice.born.year)  # 1990
print(people.defer.find("Bob").get())  # None
people.cast.find("Alice")
for person in people.stream.everybody():
    print(person.name)  # Alice
