import amphora
from amphora import AmqpRpcClient

client = AmqpRpcClient("price-list")
print(client.call(retries=3).set_price("tea", 3))  # 1

# In the background.
setting = amphora.spawn(client.call(retries=3).set_price, "coffee", 4)
print(setting.get())  # 2
