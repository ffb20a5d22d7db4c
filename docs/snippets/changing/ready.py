from amphora import AmqpRpcClient, ManagementClient

with AmqpRpcClient("shop") as client, ManagementClient() as management:
    print(client.call.price("tea", country="fr"))  # {'net': 10, 'country': 'fr'}
    answers = [reply.value for reply in management.ask("shop", "describe", timeout=5.0)]
    offered = [{function["name"] for function in answer["functions"]} for answer in answers]
    print(all("net_price" in names for names in offered))  # True
