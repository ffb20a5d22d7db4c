"""amphora at work: two servers in processes of their own, and a client that calls them.

    python examples/demo.py                    with a broker of its own
    python examples/demo.py --url amqp://...   with a RabbitMQ (or set AMQP_URL)

It is the command `amphora demo`; amphora/cli/demo/demo.py is all of it.
"""

import sys

from amphora.cli import main

main(["demo", *sys.argv[1:]])
