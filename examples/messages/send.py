"""Send a user a message from anywhere, as Core does.

python examples/messages/send.py Alice "Dinner is ready."
"""

import sys

from amphora import AmqpRpcClient

if len(sys.argv) != 3:
    sys.exit(__doc__)
username, text = sys.argv[1:]
with AmqpRpcClient("core") as core:
    if not core.call.send("The command line", username, text):
        sys.exit(f"Nobody has signed in as {username} yet.")
