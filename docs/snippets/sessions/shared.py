from amphora import AmqpRpcClient, AmqpRpcServer, Session

with Session() as session:
    server = AmqpRpcServer("sessions", session=session)
    server.add_function(len)
    server.serve()
    client = AmqpRpcClient("sessions", session=session)
    print(client.call.len("amphora"))  # 7
    client.close()
    server.stop()
    print(session.state)  # connected
print(session.state)  # closed
