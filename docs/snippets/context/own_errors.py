from amphora import AmqpRpcClient, RemoteException


class NotForSale(Exception):
    pass


KNOWN = {"NotForSale": NotForSale}
client = AmqpRpcClient("context")


@client.use
def raise_own(call, proceed):
    try:
        return proceed()
    except RemoteException as error:
        if error.error_type not in KNOWN:
            raise
        raise KNOWN[error.error_type](*error.args) from error


try:
    client.call.price("tea")
except NotForSale as error:
    print(error)  # tea
