"""Asking workers: one command, and the answers of all of them."""

from __future__ import annotations

from time import monotonic
from typing import Any

from amphora.rpc import naming
from amphora.rpc.client import AmqpRpcClient
from amphora.rpc.gather import Gathered
from amphora.rpc.roll_call import OneWorker, RollCall
from amphora.rpc.timeouts import check_timeout
from amphora.transport.topology import Exchange, Topology

DEFAULT_TIMEOUT = 5.0


class ManagementClient(AmqpRpcClient):
    """Send management commands to the workers of a namespace, or to one of them.

        with ManagementClient() as management:
            for reply in management.ask("math", "ping"):
                print(reply.worker, reply.value)

    Args:
        settings: as for `AmqpRpcClient`: `url`, `session`, `timeout` and the others.
    """

    def __init__(self, *, timeout: float = DEFAULT_TIMEOUT, **settings: Any) -> None:
        super().__init__(naming.MANAGEMENT_NAMESPACE, timeout=timeout, **settings)

    def _check_namespace(self, namespace: str) -> str:
        return namespace

    def _request_topology(self) -> Topology:
        # Each worker binds its own queue; with no worker there, a command is for nobody.
        return Topology(Exchange(self._exchange))

    def ask(
        self,
        namespace: str,
        command: str,
        *args: Any,
        worker: str | None = None,
        timeout: float | None = None,
    ) -> Gathered:
        """Send a command and return the workers' answers, as they come.

        Never switches greenlets; iterating the answers does.

        Args:
            namespace: whose workers to ask.
            command: "ping", "stats", "describe", "kill", "eval" or one that the server added.
            args: the command's arguments.
            worker: the worker id of the only one to ask.
            timeout: seconds to wait for the answers; the client's if None.

        Raises:
            ValueError: the namespace cannot be one.
            ConnectionLost: the client is closed.
        """
        naming.check_namespace(namespace)
        timeout = self.timeout if timeout is None else check_timeout(timeout)
        key = naming.management_key(worker or namespace)
        deadline = monotonic() + timeout
        options = {"routing_key": key}
        outgoing = self._outgoing(command, args, {}, options, self._requested, deadline)
        roll_call = RollCall(self.session, namespace) if worker is None else OneWorker()
        gathered = Gathered(self._calls.forget, command, timeout, outgoing, roll_call)
        self._calls.publish(gathered, deadline)
        return gathered

    def count_workers(self, namespace: str) -> int | None:
        """Return how many workers are there; None if the broker cannot be asked.

        Switches greenlets.
        """
        return RollCall(self.session, namespace).count()
