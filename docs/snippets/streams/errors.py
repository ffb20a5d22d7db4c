from amphora import AmqpRpcClient, RemoteException, StreamLost

client = AmqpRpcClient("streams")
numbers = []
try:
    for number in client.stream.lines("1\n2\nthree\n4"):
        numbers.append(number)
except RemoteException as error:
    print(error)  # ValueError: could not convert string to float: 'three'
print(numbers)  # [1.0, 2.0]

times = []
stream = client.stream.clock(0.1)
client.cast.restart()
try:
    for time in stream:
        times.append(time)
except StreamLost as error:
    print(error)  # streams.clock was ended before it was done; its server may have been stopped
    print(error.received == len(times))  # True
    print(error.executed)  # None
