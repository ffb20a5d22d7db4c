"""arpc's names: AMQPOperations, make_json_server, ServiceCaller.

from amphora.arpc import mq

amqp = mq.AMQPOperations(useack=True, persistent=True)
server = mq.make_json_server(amqp, "example", ExampleService())
server.loop()
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Unpack

from amphora.errors import NoResult, repr_of
from amphora.rpc.client.caller import DEFAULT_TIMEOUT
from amphora.rpc.client.client import AmqpRpcClient
from amphora.rpc.client.management import ManagementClient
from amphora.rpc.client.waiting.gather import Reply
from amphora.rpc.contract import naming
from amphora.rpc.contract.types.signatures import check_bound
from amphora.rpc.functions.services import service_methods
from amphora.rpc.functions.unfinished import check_function
from amphora.rpc.server.server import AmqpRpcServer
from amphora.transport.channels.raw_channel import RawChannel
from amphora.transport.connections.endpoint import SETTINGS, ConnectionSettings
from amphora.transport.options import check_options
from amphora.transport.session import Session

MANAGEMENT_PREFIX = f"{naming.MANAGEMENT_NAMESPACE}."
# How arpc writes the seconds between requests.
_SECONDS = "{:.4f}"
# Management commands that take nothing; eval takes the document's "expr", others all of it.
_WITHOUT_ARGUMENTS = ("ping", "stats", "describe", "kill")

Document = dict[str, Any]


class AMQPOperations:
    """Where the broker is, and whether messages are persistent.

    Args:
        useack: ignored: requests are always acknowledged.
        persistent: let requests and replies survive a restart of the broker.
        host: the broker's host, or `host:port`.
        userid, password, virtual_host: the login, with py-amqplib's names.
        url: all of that as a URL.
        session: your own session, instead of all these.
        settings: the other settings of `amphora.Session`.

    Raises:
        ValueError: a setting cannot be understood.
    """

    def __init__(
        self,
        useack: bool = True,
        persistent: bool = True,
        *,
        host: str | None = None,
        userid: str | None = None,
        password: str | None = None,
        virtual_host: str | None = None,
        url: str | None = None,
        session: Session | None = None,
        **settings: Unpack[ConnectionSettings],
    ) -> None:
        self.useack = useack
        self.persistent = persistent
        if host is not None:
            name, colon, port = host.rpartition(":")
            if colon and port.isdigit():
                settings["amqp_host"], settings["amqp_port"] = name, int(port)
            else:
                settings["amqp_host"] = host
        if userid is not None:
            settings["amqp_user"] = userid
        if password is not None:
            settings["amqp_password"] = password
        if virtual_host is not None:
            settings["amqp_vhost"] = virtual_host
        self._owns_session = session is None
        check_options(type(self), settings, SETTINGS)
        self.session = Session(url, **settings) if session is None else session

    def __repr__(self) -> str:
        return f"<AMQPOperations {self.session.endpoint}>"

    def channel(self) -> RawChannel:
        """Open a raw AMQP channel; see `amphora.Session.channel`.  Switches greenlets."""
        return self.session.channel()

    def close(self) -> None:
        """Close the connections, unless the session is yours.  Switches greenlets."""
        if self._owns_session:
            self.session.close()


class JSONServer:
    """A worker process for a service.  Made by `make_json_server`.

    Attributes:
        server: the `AmqpRpcServer` behind it.
        wid: the worker id.
    """

    def __init__(
        self, amqp: AMQPOperations, key: str, service: object, management: Iterable[str]
    ) -> None:
        methods = list(service_methods(service, "c_"))
        for name, method in methods:
            # Behind what takes the document, the server does not see them.
            check_bound(method)
            check_function(name, method)
        self.server = _Worker(key, session=amqp.session, management=management)
        for name, method in methods:
            self.server.add_function(_taking_a_document(method), name)
        self.wid = self.server.worker_id

    def __repr__(self) -> str:
        return f"<JSONServer {self.server!r}>"

    def add_command(self, name: str, command: Callable[[Document], Any]) -> None:
        """Add a management command, which gets the request document."""
        self.server.add_command(_taking_a_document(command), name)

    def loop(self) -> None:
        """Serve until the process is told to stop.  Switches greenlets."""
        self.server.serve(nowait=False)

    def stop(self) -> None:
        """Finish what is in progress, and end `loop`.  Switches greenlets."""
        self.server.stop()


class _Worker(AmqpRpcServer):
    _worker_prefix = "arpc-"
    _serves_by = "server.loop()"


def make_json_server(
    amqp: AMQPOperations,
    key: str,
    service: object,
    management: Iterable[str] = (),
) -> JSONServer:
    """Return a worker for the requests with a routing key.

    Args:
        amqp: where the broker is.
        key: the routing key, which names the service.
        service: an object; its methods whose names begin with `c_` take a request document and
            return the response document.
        management: the management commands to switch on, "kill" or "eval" or both.

    Raises:
        ValueError: the key cannot be the name of a service.
        TypeError: the service is a class, whose methods have no object, or a call of a method would
            not run its body.
    """
    return JSONServer(amqp, key, service, management)


class ServiceCaller:
    """Send request documents to a service, or to the management of its workers.

    Args:
        amqp: where the broker is.
        key: the service's routing key; `mgt.<service>` for the management of all its workers,
            `mgt.<worker id>` for that of one.
        want_replies: with False, requests are sent without waiting for an answer.
    """

    def __init__(self, amqp: AMQPOperations, key: str, want_replies: bool = True) -> None:
        if not isinstance(key, str):
            raise ValueError(f"the key of a service must be text, not {repr_of(key)}")
        self.key = key
        self.want_replies = want_replies
        self._target = key.removeprefix(MANAGEMENT_PREFIX)
        self._manages = key != self._target
        if self._manages:
            self._management = ManagementClient(session=amqp.session)
        else:
            self._client = AmqpRpcClient(key, session=amqp.session, durable=amqp.persistent)

    def send_request(self, request: Document, timeout: float = DEFAULT_TIMEOUT) -> Any:
        """Send a request document and return the response document; None without replies.

        If several workers answer a management command, the first reply is returned.  Switches
        greenlets.

        Args:
            request: the document; `c` names the method, without its `c_`.
            timeout: seconds to wait.

        Raises:
            RemoteException: the method raised; it has the exception's name and traceback.
            NoResult: there was no reply in time.
        """
        if not self.want_replies:
            return self._tell(request)
        if self._manages:
            for response in self.send_to_all(request, timeout):
                return response
            raise NoResult(f"no worker answered {self.key} within {timeout:g} s")
        return self._client.call(function_name=name_in(request), timeout=timeout)(request)

    def _tell(self, request: Document) -> None:
        if self._manages:
            command, args = command_in(request)
            namespace, worker = namespace_and_worker(self._target)
            self._management.tell(namespace, command, *args, worker=worker)
        else:
            self._client.cast(function_name=name_in(request))(request)

    def send_lazy_request(self, request: Document, timeout: float = DEFAULT_TIMEOUT) -> Any:
        """Send a request document and return a result; its `get()` waits for the response.

        Raises:
            ValueError: the request is for the management.
        """
        if self._manages:
            raise ValueError("requests to the management cannot be lazy; use send_to_all")
        return self._client.defer(function_name=name_in(request), timeout=timeout)(request)

    def send_to_all(self, request: Document, timeout: float = DEFAULT_TIMEOUT) -> Iterator[Any]:
        """Send a request document and yield the response of each worker.  Switches greenlets.

        Raises:
            RemoteException: a worker's method raised.
        """
        if not self._manages or not self.want_replies:
            yield self.send_request(request, timeout)
            return
        command, args = command_in(request)
        namespace, worker = namespace_and_worker(self._target)
        replies = self._management.ask(namespace, command, *args, worker=worker, timeout=timeout)
        for reply in replies:
            yield _as_arpc_says_it(command, reply)

    def close(self) -> None:
        """Close the clients; pending requests fail.  Switches greenlets."""
        (self._management if self._manages else self._client).close()


def name_in(request: Document) -> str:
    """Return the name of the method that a request document is for.

    Raises:
        ValueError: it has none.
    """
    name = request.get("c") if isinstance(request, dict) else None
    if not isinstance(name, str):
        raise ValueError('a request is a document with the name of a method in "c"')
    return name


def command_in(request: Document) -> tuple[str, tuple[Any, ...]]:
    """Return the management command that a request document is for, and its arguments.

    Raises:
        ValueError: it has none.
    """
    command = name_in(request)
    if command in _WITHOUT_ARGUMENTS:
        return command, ()
    return command, (request.get("expr", ""),) if command == "eval" else (request,)


def _taking_a_document(method: Callable[..., Any]) -> Callable[[Document], Any]:
    def handle(req: Document) -> Any:
        return method(req)

    handle.__name__ = getattr(method, "__name__", "handle")
    handle.__doc__ = inspect.getdoc(method)
    return handle


def namespace_and_worker(target: str) -> tuple[str, str | None]:
    """Return the namespace that `mgt.<target>` is for, and the worker id if it is for one."""
    namespace, _, digits = target.rpartition("-")
    if namespace and naming.is_worker_number(digits):
        return namespace.removeprefix(_Worker._worker_prefix), target
    return target, None


def _as_arpc_says_it(command: str, reply: Reply) -> Any:
    value = reply.get()
    if command == "ping":
        return {"host": value["host"], "wid": value["wid"], "pid": value["pid"]}
    if command == "stats":
        return {
            "wid": value["wid"],
            "pid": value["pid"],
            "host": value["host"],
            "waittimes": [_SECONDS.format(seconds) for seconds in value["wait_times"]],
            "processed": value["processed"],
            "exceptions": value["exceptions"],
        }
    return value
