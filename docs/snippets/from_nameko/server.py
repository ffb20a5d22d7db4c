from amphora import AmqpRpcServer, exposed


class GreetingService:
    @exposed
    def hello(self, name: str) -> str:
        return f"Hello, {name}!"


server = AmqpRpcServer("greeting")
server.add_service(GreetingService(), prefix="")
server.run()
