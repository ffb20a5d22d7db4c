"""The queue whose consumers are the workers of a namespace: see `client/roll_call`."""

from __future__ import annotations

from amphora.errors import ChannelClosed, ConnectionLost
from amphora.rpc.contract import naming
from amphora.transport.connections.connection import Connection
from amphora.transport.consuming.cheap_queue import CheapQueue
from amphora.transport.links.link import Link
from amphora.wire.codec import methods
from amphora.wire.codes import ReplyCode

# Seconds for the broker to delete it, and to close the connection.
TIMEOUT = 1.0
GOODBYE_TIMEOUT = 0.1


class RollCallQueue(CheapQueue):
    """The roll call queue, as workers declare and consume it.

    All workers use the same name, and it never has messages.  While its node is away, it is deleted
    and declared on another node.  RabbitMQ 3 cannot delete it then, so no workers can be counted
    until its node is back.  RabbitMQ 4 can, unless that node was stopped in good order: then it
    ends the connection that asks for it (541).  So this is not the one on which the worker
    consumes, and it is asked once on each of those.

    Args:
        link: on whose connections it is declared.
    """

    def __init__(self, namespace: str, link: Link) -> None:
        super().__init__(naming.roll_call_queue(namespace), None, expires=naming.LEFT_QUEUE_EXPIRES)
        self._link = link
        # It usually exists, made by another worker, and maybe on a node that is away.
        self._made = True
        self._in_vain_on: Connection | None = None

    def doubt(self) -> None:
        """Look for the queue again before it is used the next time."""
        super().doubt()
        self._in_vain_on = None

    def away(self, connection: Connection) -> None:
        """Delete it, unless another worker has made it again meanwhile."""
        if self._in_vain_on is connection or not self._delete():
            self._in_vain_on = connection
            raise ConnectionLost(
                f"the node of queue {self.name} is stopped, and the broker cannot delete the queue"
                " meanwhile"
            )

    def _delete(self) -> bool:
        """Return False if the broker is not able to."""
        connection = Connection.open(self._link.endpoint, *self._link.host, self._link.name)
        try:
            connection.channel(TIMEOUT).call(
                methods.Queue.Delete(queue=self.name, if_unused=True),
                methods.Queue.DeleteOk,
                timeout=TIMEOUT,
            )
        except ChannelClosed as error:
            # Another worker consumes it: its node is not away, but slow to answer.
            if error.code != ReplyCode.PRECONDITION_FAILED:
                raise
        except ConnectionLost:
            if not connection.internal_error:
                raise
            return False
        finally:
            connection.close(GOODBYE_TIMEOUT)
        return True
