from contextvars import ContextVar

from amphora import AmqpRpcServer, current, spawn

server = AmqpRpcServer("context")
GREETINGS = {"en": "Hello", "fr": "Bonjour"}
language = ContextVar("language", default="en")


@server.middleware
def in_the_callers_language(call, proceed):
    language.set(call.headers.get("language", "en"))
    return proceed()


@server.add_function
def greet():
    return f"{GREETINGS[language.get()]}, {current().user}"


@server.add_function
def greet_twice():
    both = [spawn(greet), spawn(greet)]
    return [greenlet.get() for greenlet in both]


@server.add_function(allow={"billing"})
def refund(order):
    return f"{order} is paid back"


class NotForSale(Exception):
    pass


@server.add_function(expected=(NotForSale,))
def price(article):
    raise NotForSale(article)


@server.on_start
def connect():
    server.database = "connected"


@server.on_stop
def disconnect():
    server.database = "closed"


server.run()
