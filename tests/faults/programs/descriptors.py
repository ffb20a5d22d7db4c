"""A client whose process may open no more files for a while: `descriptors.py NAMESPACE URL`.

It calls, takes all descriptors that there are, waits until its connections are gone and cannot be
made again, gives the descriptors back, and calls again.
"""

import os
import resource
import sys
from time import monotonic

import gevent

import amphora

LIMIT = 64
PATIENCE = 20.0

namespace, url = sys.argv[1:]
client = amphora.AmqpRpcClient(namespace, url=url, timeout=PATIENCE)
client.call.work("first")
print("first answer: ok", flush=True)
links = (client.session.publishing, client.session.consuming)
resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
taken = []
deadline = monotonic() + PATIENCE
while not all("Too many open files" in str(link.error) for link in links):
    assert monotonic() < deadline, [str(link.error) for link in links]
    try:
        taken.append(os.dup(0))
    except OSError:
        # All are taken; those of a lost connection are free for a moment.
        gevent.sleep(0)
print(links[0].error, flush=True)
for descriptor in taken:
    os.close(descriptor)
client.call.work("second")
print("second answer: ok", flush=True)
client.close()
