from amphora import AmqpRpcClient, RemoteException, WrongRequest

client = AmqpRpcClient("calling")
try:
    client.call.divide(1, 0)
except RemoteException as error:
    print(error)  # ZeroDivisionError: division by zero
    print(error.error_type)  # ZeroDivisionError
    print(error.args)  # ('division by zero',)
    print(error.traceback.splitlines()[0])  # Traceback (most recent call last):

try:
    client.call.divide(1)
except WrongRequest as error:
    print(error)  # divide: missing a required argument: 'y'; it takes (x, y)

try:
    client.call.multiply(2, 3)
except WrongRequest as error:
    print(error)  # calling has no function 'multiply'; it has add, divide, send_message.sms, sleep
