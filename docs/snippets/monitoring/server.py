from amphora import AmqpRpcServer
from amphora.observe.metrics import of_process

server = AmqpRpcServer("weather")
of_process.watch(server)


@server.add_function
def temperature(city):
    return {"Oslo": 4, "Rome": 21}[city]


server.run()
