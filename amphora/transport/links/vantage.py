"""Leaving a node that has lost sight of the others, or a connection that it holds up.

From RabbitMQ 4.3 on, a node that is cut off from the rest of its cluster keeps its clients: it
answers heartbeats, but nothing that they send is confirmed or arrives.  Asking it does not help,
because it answers from what it last knew.  Only an operation that needs most nodes shows the cut,
such as binding a queue, even one that is bound already.  So when something has been waited for for
some seconds, one of the program's own bindings is made again.  If this node does not answer and
another host does, the link goes there.  If no host answers, it stays.

A binding that is not answered ends its connection half a minute later, even if the cluster has
healed by then.  So each is made on a connection of its own.

A node that answers there may still hold up what publishes, because another node is silent (see
`publisher`).  Then the link goes to any host, this one too.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import gevent

from amphora.errors import AmphoraError, ChannelClosed, ConnectionLost
from amphora.net.address import address
from amphora.net.backoff import doubled
from amphora.transport.connections.connecting import Host
from amphora.transport.connections.connection import Connection
from amphora.transport.links.link import Link
from amphora.transport.links.restoring import Restorable
from amphora.transport.links.topology import Binding
from amphora.wire.codec import methods
from amphora.wire.codes import ReplyCode

# Seconds for which the same thing is waited for before a node is asked.  Each answer makes the next
# interval longer, because each question costs the node a login.
FIRST_INTERVAL = 3.0
LONGEST_INTERVAL = 120.0
# The same after a question without an answer: a cluster may be about to choose a leader.
DOUBTFUL_INTERVAL = 0.5
# Seconds for a node to answer, and to close the connection.
ANSWER_TIMEOUT = 1.0
GOODBYE_TIMEOUT = 0.1


class Vantage(Restorable):
    """Have a link leave a host that is cut off from the others, when another host is not.

    Does nothing on a link with a single host.

    Args:
        link: the link.
        binding: returns a binding that exists when all is well.
        oldest: returns an object that identifies what has been waited for longest, equal as long
            as it is the same; None while nothing is waited for.
        is_held_up: returns whether the broker takes nothing more on the present connection of the
            link; may switch greenlets.
    """

    def __init__(
        self,
        link: Link,
        binding: Callable[[], Binding],
        oldest: Callable[[], object],
        is_held_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self._link = link
        self._binding = binding
        self._oldest = oldest
        self._is_held_up = is_held_up
        self._watcher: gevent.Greenlet[..., None] | None = None

    def __repr__(self) -> str:
        return f"<Vantage of {self._link.name}>"

    def restore(self, connection: Connection) -> None:
        """Watch a new connection."""
        self.lost()
        if len(self._link.endpoint.hosts) > 1:
            watcher = gevent.Greenlet(self._watch, connection)
            watcher.rawlink(self._watcher_ended)
            self._watcher = watcher
            watcher.start()

    def lost(self) -> None:
        """Called when the connection is gone: stop watching."""
        self.ready = False
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.kill(block=False)

    def close(self) -> None:
        """Stop watching, on later connections too."""
        self._link.remove(self)
        self.lost()

    def _watcher_ended(self, watcher: Any) -> None:
        mine: Any = self._watcher
        if mine is watcher and not watcher.successful():
            # Ended by an exception for another greenlet, or by a bug, which gevent has printed.
            self._link.restore_soon(self)

    def _watch(self, connection: Connection) -> None:
        interval = FIRST_INTERVAL
        answered = True
        while connection.error is None:
            before = self._oldest()
            # So that not all clients ask at once.
            gevent.sleep(interval * random.uniform(0.8, 1.2))  # noqa: S311 (no secret)
            longer = doubled(interval, DOUBTFUL_INTERVAL, LONGEST_INTERVAL)
            if before is None or self._oldest() != before:
                interval, answered = FIRST_INTERVAL, True
            elif self._answers(self._link.host):
                interval, answered = longer, True
                if self._is_held_up():
                    self._link.leave(f"{connection.peer} holds up what was published there")
            else:
                interval = DOUBTFUL_INTERVAL if answered else longer
                answered = False
                other = self._host_that_answers()
                # Ask again: a cluster that has just chosen a leader answers on every node.
                if other is not None and not self._answers(self._link.host):
                    self._link.leave(
                        f"{connection.peer} is cut off from the other nodes, {other} is not"
                    )

    def _host_that_answers(self) -> str | None:
        """Return another host that is not cut off, None if there is none."""
        others: list[Host] = [host for host in self._link.endpoint.hosts if host != self._link.host]
        for host in random.sample(others, len(others)):
            if self._answers(host):
                return address(*host)
        return None

    def _answers(self, host: Host) -> bool:
        """Return whether a host makes the binding, or refuses it for good reason."""
        binding = self._binding()
        bind = methods.Queue.Bind(
            queue=binding.queue, exchange=binding.exchange, routing_key=binding.routing_key
        )
        connection = None
        try:
            connection = Connection.open(self._link.endpoint, *host, self._link.name)
            connection.channel(ANSWER_TIMEOUT).call(
                bind, methods.Queue.BindOk, timeout=ANSWER_TIMEOUT
            )
        except ChannelClosed as error:
            # What is there according to the others may be unknown to a node that is cut off.
            return error.code != ReplyCode.NOT_FOUND
        except ConnectionLost:
            return False
        except AmphoraError:
            pass
        finally:
            if connection is not None:
                connection.close(GOODBYE_TIMEOUT)
        return True
