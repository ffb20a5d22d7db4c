"""arpc's names: AMQPOperations, make_json_server, ServiceCaller.

from amphora.arpc import mq

amqp = mq.AMQPOperations(useack=True, persistent=True)
server = mq.make_json_server(amqp, "example", ExampleService())
server.loop()
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from amphora.errors import NoResult
from amphora.rpc import naming
from amphora.rpc.client import DEFAULT_TIMEOUT, AmqpRpcClient
from amphora.rpc.gather import Reply
from amphora.rpc.management_client import ManagementClient
from amphora.rpc.server import AmqpRpcServer
from amphora.rpc.services import service_methods
from amphora.transport.channel import Channel
from amphora.transport.session import Session

MANAGEMENT_PREFIX = f"{naming.MANAGEMENT_NAMESPACE}."
# How arpc writes the seconds between requests.
_SECONDS = "{:.4f}"
# Management commands that take nothing; eval takes the document's "expr", others all of it.
_WITHOUT_ARGUMENTS = ("ping", "stats", "describe", "kill")

Document = dict[str, Any]


class AMQPOperations:
    """Where the broker is, and how careful to be.

    Args:
        useack: accepted for arpc's sake; requests are always acknowledged.
        persistent: let requests and replies survive a restart of the broker.
        host: the broker's host, or `host:port`.
        userid, password, virtual_host: the login, named as py-amqplib did.
        url: all of that as a URL.
        session: a session of yours to use, instead of all these.
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
        **settings: Any,
    ) -> None:
        self.useack = useack
        self.persistent = persistent
        if host is not None:
            name, colon, port = host.rpartition(":")
            if colon and port.isdigit():
                settings["amqp_host"], settings["amqp_port"] = name, int(port)
            else:
                settings["amqp_host"] = host
        login = {"amqp_user": userid, "amqp_password": password, "amqp_vhost": virtual_host}
        settings.update({name: value for name, value in login.items() if value is not None})
        self._owns_session = session is None
        self.session = Session(url, **settings) if session is None else session

    def __repr__(self) -> str:
        return f"<AMQPOperations {self.session.endpoint}>"

    def channel(self) -> Channel:
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
        self.server = _Worker(key, session=amqp.session, management=management)
        for name, method in service_methods(service, "c_"):
            self.server.add_function(_taking_a_document(method), name)
        self.wid = self.server.worker_id

    def __repr__(self) -> str:
        return f"<JSONServer {self.server!r}>"

    def add_command(self, name: str, command: Callable[[Document], Any]) -> None:
        """Answer one more management command; it gets the request document."""
        self.server.add_command(_taking_a_document(command), name)

    def loop(self) -> None:
        """Serve until the process is told to stop.  Switches greenlets."""
        self.server.serve(nowait=False)

    def stop(self) -> None:
        """Finish what is in work, and end `loop`.  Switches greenlets."""
        self.server.stop()


class _Worker(AmqpRpcServer):
    _worker_prefix = "arpc-"


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
        service: an object; its methods whose name begins with `c_` take a request document and
            return the response document.
        management: the management commands to switch on, among "kill" and "eval".

    Raises:
        ValueError: the key cannot be the name of a service.
    """
    return JSONServer(amqp, key, service, management)


class ServiceCaller:
    """Send request documents to a service, or to the management of its workers.

    Args:
        amqp: where the broker is.
        key: the service's routing key; `mgt.<service>` for the management of all its workers,
            `mgt.<worker id>` for that of one.
        want_replies: with False, requests are sent without waiting for anything.
    """

    def __init__(self, amqp: AMQPOperations, key: str, want_replies: bool = True) -> None:
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

        Of several workers' management, the first reply is returned.  Switches greenlets.

        Args:
            request: what the service gets; `c` names the method, without its `c_`.
            timeout: seconds to wait.

        Raises:
            RemoteException: the method raised; it has the exception's name and traceback.
            NoResult: there was no reply in time.
        """
        if not self.want_replies:
            return self._client.cast(function_name=name_in(request))(request)
        if self._manages:
            for response in self.send_to_all(request, timeout):
                return response
            raise NoResult(f"no worker answered {self.key} within {timeout:g} s")
        return self._client.call(function_name=name_in(request), timeout=timeout)(request)

    def send_lazy_request(self, request: Document, timeout: float = DEFAULT_TIMEOUT) -> Any:
        """Send a request document at once; `get()` of what is returned waits for the response.

        Raises:
            ValueError: it is a request to the management.
        """
        if self._manages:
            raise ValueError("requests to the management cannot be lazy; use send_to_all")
        return self._client.defer(function_name=name_in(request), timeout=timeout)(request)

    def send_to_all(self, request: Document, timeout: float = DEFAULT_TIMEOUT) -> Iterator[Any]:
        """Send a request document and yield the response of each worker.  Switches greenlets.

        Raises:
            RemoteException: a worker's method raised.
        """
        if not self._manages:
            yield self.send_request(request, timeout)
            return
        command = name_in(request)
        args: tuple[Any, ...] = (request,)
        if command in _WITHOUT_ARGUMENTS:
            args = ()
        elif command == "eval":
            args = (request.get("expr", ""),)
        namespace, worker = namespace_and_worker(self._target)
        replies = self._management.ask(namespace, command, *args, worker=worker, timeout=timeout)
        for reply in replies:
            yield _as_arpc_says_it(command, reply)

    def close(self) -> None:
        """Forget what is pending.  Switches greenlets."""
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


def _taking_a_document(method: Callable[..., Any]) -> Callable[[Document], Any]:
    def handle(req: Document) -> Any:
        return method(req)

    handle.__name__ = getattr(method, "__name__", "handle")
    handle.__doc__ = inspect.getdoc(method)
    return handle


def namespace_and_worker(target: str) -> tuple[str, str | None]:
    """Return the namespace that `mgt.<target>` is for, and the worker if it is for one."""
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
