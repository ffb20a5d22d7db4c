from amphora import AmqpRpcClient

PART = 2**20
photo = bytes(3_000_000)
client = AmqpRpcClient("files", serializer="msgpack")

print(client.call(timeout=120).digest(photo)[:8])  # 35bce4ea

for offset in range(0, len(photo), PART):
    client.call(retries=3).write("photo", offset, photo[offset : offset + PART])

print(sum(len(part) for part in client.stream.read("photo")))  # 3000000
