from amphora import AmqpRpcClient, ManagementClient

with AmqpRpcClient("sums") as client:
    client.call.add(1, 2)

with ManagementClient() as management:
    for reply in management.ask("sums", "stats"):
        print(reply.value["processed"])  # 1
    print(management.ask("sums", "set_level", "debug").values())  # ['debug']
    management.ask("sums", "kill").values()
