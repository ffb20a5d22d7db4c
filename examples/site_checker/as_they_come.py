"""Check sites, and tell of each as soon as it is known."""

import sys

from amphora import AmqpRpcClient, RemoteException, iwait

with AmqpRpcClient("sites") as client:
    results = [client.defer.check(url) for url in sys.argv[1:]]
    for result in iwait(results):
        try:
            print(result.get())
        except RemoteException as error:
            print(f"not checked: {error}")
