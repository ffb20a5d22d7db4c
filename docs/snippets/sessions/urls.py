from amphora import Session

print(Session("amqp://alice:secret@broker.example/shop").endpoint)
# amqp://alice:***@broker.example:5672/shop

print(Session("amqp://one.example,two.example:5673/?heartbeat=20").endpoint)
# amqp://guest:***@one.example:5672,two.example:5673/

print(Session(amqp_host="broker.example", amqp_user="alice", amqp_password="secret").endpoint)
# amqp://alice:***@broker.example:5672/
