import operator

from amphora import AmqpRpcServer

server = AmqpRpcServer("functions")


# Under its own name.
@server.add_function
def add(x, y):
    return x + y


# Under another name. Dots are part of the name.
@server.add_function("text.shout")
def in_capitals(text):
    return text.upper()


# Anything that can be called: builtins, bound methods, objects.
server.add_function(operator.sub, name="sub")


class Counter:
    def __init__(self):
        self.value = 0

    def increment(self):
        self.value += 1
        return self.value


server.add_function(Counter().increment)

server.run()
