"""Check sites, and tell of each as soon as it is known.

python examples/site_checker/as_they_come.py http://localhost:8000/ ...
"""

import sys

from amphora import AmqpRpcClient, RemoteException, iwait

if len(sys.argv) < 2:
    sys.exit(__doc__)
with AmqpRpcClient("sites") as client:
    results = [client.defer.check(url) for url in sys.argv[1:]]
    for result in iwait(results):
        try:
            print(result.get())
        except RemoteException as error:
            print(f"not checked: {error}")
