import gevent

from amphora import AmqpRpcServer

server = AmqpRpcServer("calling")


@server.add_function
def add(x, y):
    return x + y


@server.add_function
def divide(x, y):
    return x / y


@server.add_function
def sleep(seconds):
    gevent.sleep(seconds)
    return seconds


@server.add_function("send_message.sms")
def send_sms(number, text):
    return f"{text} to {number}"


server.run()
