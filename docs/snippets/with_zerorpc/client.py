import zerorpc

client = zerorpc.Client("tcp://127.0.0.1:4242", timeout=30)
print(client.total([3, 5]))  # 8
print(list(client.countdown(3)))  # [3, 2, 1]
try:
    client.total(["three", "five"])
except zerorpc.RemoteError as error:
    print(error.name)  # TypeError
client.close()
