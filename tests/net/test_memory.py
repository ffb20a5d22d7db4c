"""What becomes of memory between one large body and the next."""

from __future__ import annotations

import platform
import subprocess
import sys

PROGRAM = """
import resource
from amphora.net.memory import keep_for_large_bodies

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def blocks_come_and_go():
    before = faults()
    for _ in range(20):
        pieces = [bytes(bytearray(65536)) for _ in range(64)]
        body = b"".join(pieces)
        del pieces
        text = body.decode()
        del body
        again = text.encode()
        del text, again
    return faults() - before

blocks_come_and_go()
before = faults()
keep_for_large_bodies()
keep_for_large_bodies()
cost = faults() - before
blocks_come_and_go()
print(cost, blocks_come_and_go())
"""


def test_memory_of_large_bodies_is_kept_and_keeping_it_costs_none() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)

    cost, faults = map(int, done.stdout.split())
    assert cost < 20
    # 20 bodies of 4 MiB are 20,000 pages and more, if each is taken again; other libraries than
    # glibc may do so.
    assert faults < 1000 or platform.libc_ver()[0] != "glibc"
