"""The queue whose consumers are the workers of a namespace: see `client/roll_call`."""

from __future__ import annotations

from amphora.errors import ChannelClosed
from amphora.rpc.contract import naming
from amphora.transport.cheap_queue import CheapQueue
from amphora.transport.connection import Connection
from amphora.wire.codec import methods
from amphora.wire.codes import ReplyCode

TIMEOUT = 1.0


class RollCallQueue(CheapQueue):
    """The roll call queue, as workers declare and consume it.

    All workers use the same name, and it never has messages.  While its node is away, it is deleted
    and declared on another node.  RabbitMQ 3 cannot delete it then, so no workers can be counted
    until its node is back.
    """

    def __init__(self, namespace: str) -> None:
        super().__init__(naming.roll_call_queue(namespace), None, expires=naming.LEFT_QUEUE_EXPIRES)
        # It usually exists, made by another worker, and maybe on a node that is away.
        self._made = True

    def away(self, connection: Connection) -> None:
        """Delete it, unless another worker has made it again meanwhile."""
        try:
            with connection.errand() as channel:
                channel.call(
                    methods.Queue.Delete(queue=self.name, if_unused=True),
                    methods.Queue.DeleteOk,
                    timeout=TIMEOUT,
                )
        except ChannelClosed as error:
            # Another worker consumes it: its node is not away, but slow to answer.
            if error.code != ReplyCode.PRECONDITION_FAILED:
                raise
