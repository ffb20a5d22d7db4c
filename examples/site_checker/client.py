"""Check sites: `python examples/site_checker/client.py http://localhost:8000/ ...`."""

import sys

from amphora import AmqpRpcClient

if len(sys.argv) < 2:
    sys.exit(__doc__)
client = AmqpRpcClient("sites")

# All of them are checked at the same time.
results = [client.defer.check(url) for url in sys.argv[1:]]

print(f"Checking {len(results)} sites")  # or anything else that is to be done

for result in results:
    print(result.get())
client.close()
