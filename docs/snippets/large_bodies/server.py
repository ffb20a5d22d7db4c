import hashlib
import os
from collections import defaultdict
from tempfile import TemporaryFile

from amphora import AmqpRpcServer

PART = 2**20
server = AmqpRpcServer("files", concurrency=10)
files = defaultdict(TemporaryFile)


@server.add_function
def digest(data: bytes) -> str:  # all of it in one message
    return hashlib.sha256(data).hexdigest()


@server.add_function(idempotent=True)
def write(name: str, offset: int, part: bytes) -> None:  # the same part twice does no harm
    os.pwrite(files[name].fileno(), part, offset)


@server.add_function
def read(name: str):  # a stream: one part after the other
    offset = 0
    while part := os.pread(files[name].fileno(), PART, offset):
        yield part
        offset += len(part)


server.run()
