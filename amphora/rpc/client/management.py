"""Asking workers: one command, and the answers of all of them."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Unpack

from amphora.net import clock
from amphora.net.forks import notice
from amphora.rpc.client.caller import Caller, CommonSettings
from amphora.rpc.client.requests import Route
from amphora.rpc.client.waiting.gather import Gathered, PendingGather, Servers
from amphora.rpc.client.workers.roll_call import OneWorker, RollCall, Unlisted
from amphora.rpc.contract import naming, reports
from amphora.rpc.contract.checks import check_timeout
from amphora.transport.channels.attendant import check_can_wait
from amphora.transport.links.topology import Exchange, Topology

DEFAULT_TIMEOUT = 5.0

_NO_CALLS = (
    "a ManagementClient sends commands, and calls no functions: write ask(namespace, command), or"
    " make an AmqpRpcClient"
)
_NO_QUEUES = (
    "a ManagementClient has no request queues: make an AmqpRpcClient of the servers' namespace"
)


class ManagementClient(Caller):
    """Send management commands to the workers of a namespace, to one of them, or to all.

        with ManagementClient() as management:
            for reply in management.ask("math", "ping"):
                print(reply.worker, reply.value)

    Args:
        timeout: seconds to wait for the answers to a command, unless it says otherwise.
        settings: as for `AmqpRpcClient`, except `queue_type`.

    Raises:
        TypeError: there is no such setting.
        ValueError: a setting cannot be understood.
    """

    _absent: ClassVar = {
        **dict.fromkeys(("call", "defer", "cast", "tune_function"), _NO_CALLS),
        **dict.fromkeys(("create_new_request_queue", "remove_request_queue"), _NO_QUEUES),
    }

    def __init__(
        self, *, timeout: float = DEFAULT_TIMEOUT, **settings: Unpack[CommonSettings]
    ) -> None:
        exchange = naming.request_exchange(naming.MANAGEMENT_NAMESPACE)
        # Each worker binds its own queue; without a worker, no queue takes a command.
        route = Route(exchange, Topology(Exchange(exchange)), spread=True)
        super().__init__(naming.MANAGEMENT_NAMESPACE, route, timeout=timeout, **settings)

    def ask(
        self,
        namespace: str | None,
        command: str,
        *args: Any,
        worker: str | None = None,
        timeout: float | None = None,
    ) -> Gathered:
        """Send a command; return the workers' answers as they come.

        Never switches greenlets; iterating the answers does.

        Args:
            namespace: whose workers to ask; None for those of all namespaces.  How many these are
                is not known, so the answers end at the timeout.  Older workers do not hear it.
            command: "ping", "stats", "describe" or "active"; one that the server has switched on,
                such as "cancel"; or one that it has added.
            args: the command's arguments.
            worker: the worker id of the only one to ask.
            timeout: seconds to wait for the answers; the client's if None.

        Raises:
            ValueError: the namespace cannot be one.
            ConnectionLost: the client is closed.
        """
        notice()
        key = _key_of(namespace, worker)
        timeout = self.timeout if timeout is None else check_timeout(timeout)
        deadline = clock.monotonic() + timeout
        outgoing = self._requests.make(command, args, {}, key, self._mailbox.template, deadline)
        servers: Servers
        if worker is not None:
            servers = OneWorker()
        elif namespace is None:
            servers = Unlisted()
        else:
            servers = RollCall(self.session, namespace)
        request = PendingGather(self._calls, command, timeout, outgoing, servers)
        gathered = Gathered(request)
        if command in reports.ALWAYS:
            # Who reads it relies on its shape, also where one of many workers tells nonsense.
            gathered._convert = partial(reports.checked, command, reports.ALWAYS[command])
        self._calls.publish(request, deadline)
        return gathered

    def tell(self, namespace: str, command: str, *args: Any, worker: str | None = None) -> None:
        """Send a command without asking for answers.  Without a worker, nothing happens.

        Switches greenlets only if too many commands are not confirmed.

        Args:
            namespace: whose workers to tell.
            command: as for `ask`.
            args: the command's arguments.
            worker: the worker id of the only one to tell.

        Raises:
            ValueError: the namespace cannot be one.
            ConnectionLost: the client is closed.
        """
        deadline = clock.monotonic() + self.timeout
        key = _key_of(namespace, worker)
        outgoing = self._requests.make(command, args, {}, key, self._requests.casts, deadline)
        outgoing.mandatory = False
        self._calls.cast(outgoing, command, deadline, log_failure=True)

    def count_workers(self, namespace: str) -> int | None:
        """Return how many workers are there; None if the broker cannot be asked.

        Switches greenlets for at most a second.

        Raises:
            RuntimeError: a signal handler or another callback calls it, which cannot wait.
        """
        check_can_wait()
        return RollCall(self.session, namespace).count()


def _key_of(namespace: str | None, worker: str | None) -> str:
    """Return the routing key of a command to all workers, a namespace's workers, or one."""
    if namespace is not None:
        naming.check_namespace(namespace)
    target = worker or namespace
    return naming.ALL_WORKERS if target is None else naming.management_key(target)
