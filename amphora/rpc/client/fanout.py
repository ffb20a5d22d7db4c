"""A request to every server of a namespace, and the answers of all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, Unpack

from amphora.rpc.client.binding import FanoutBound, Ways
from amphora.rpc.client.caller import CallerSettings
from amphora.rpc.client.calling import WENT_THROUGH, FunctionCaller, note
from amphora.rpc.client.proxy import GatherWay, SpreadOptions, SpreadWay
from amphora.rpc.client.requests import Route
from amphora.rpc.client.waiting.gather import Gathered, PendingGather
from amphora.rpc.client.waiting.result import Result
from amphora.rpc.client.workers.roll_call import RollCall
from amphora.rpc.context.call import here
from amphora.rpc.contract import legacy, naming
from amphora.rpc.contract.bodies import GATHER
from amphora.transport.links.topology import Exchange, Topology

A = TypeVar("A")

_NO_KEYS = "every server gets every request of a fanout client: it has no keys"


class AmqpRpcFanoutClient(FunctionCaller):
    """Call a function in all servers of a namespace.

    `call.f(x)` and `defer.f(x)` take the first answer that comes.  `gather(timeout=1.0).f(x)`
    returns the answers of all servers as a `Gathered`.

    Args:
        namespace: the servers' namespace.
        settings: as for `AmqpRpcClient`, except `queue_type`: every server has a queue of its own.

    Raises:
        TypeError: there is no such setting.
        ValueError: a setting cannot be understood.

    Attributes:
        call: `call.f(x)` waits for the first answer and returns it.
        defer: `defer.f(x)` returns a `Result` at once.
        cast: `cast.f(x)` asks for no answer and returns None.
        gather: `gather.f(x)` returns a `Gathered` at once.
    """

    _absent: ClassVar = {
        **dict.fromkeys(("create_new_request_queue", "remove_request_queue"), _NO_KEYS),
        "stream": "an AmqpRpcClient reads streams, each from one server",
    }

    @legacy.also_takes(legacy.SERVICE_NAME, positions=legacy.CLIENT_POSITIONS, unused=legacy.UNUSED)
    def __init__(self, namespace: str, **settings: Unpack[CallerSettings]) -> None:
        exchange = naming.request_exchange(naming.check_namespace(namespace))
        route = Route(exchange, Topology(Exchange(exchange, "fanout")), spread=True)
        super().__init__(namespace, route, **settings)
        self.call: SpreadWay[Any] = SpreadWay("call", self._call)
        self.defer: SpreadWay[Result] = SpreadWay("defer", self._defer)
        self.cast: SpreadWay[None] = SpreadWay("cast", self._cast)
        self.gather: GatherWay[Gathered] = GatherWay("gather", self._gather)
        self._roll_call = RollCall(self.session, namespace)

    def bind(
        self,
        api: Callable[..., A],
        *,
        name: str = "",
        check: bool = False,
        **options: Unpack[SpreadOptions],
    ) -> FanoutBound[A]:
        """Return the functions of a class that says what the servers offer, for typed calls.

        See `AmqpRpcClient.bind`.  What differs is `gather(MathAPI.sum_numbers)(1, 2)`, which takes
        the answers of all servers.

        Args:
            api: the class, a Protocol or any other.  It is not instantiated.
            name: put before the names of the functions, with a dot.
            check: compare the class with what the servers say that they offer, before the first
                call.
            options: the options of all calls; see `FanoutBound.options`.

        Raises:
            TypeError: it is not a class or has no methods; a hint of a result cannot be used; or
                there is no such option.
        """
        ways: Ways = {
            "call": self.call,
            "defer": self.defer,
            "cast": self.cast,
            "gather": self.gather,
        }
        return FanoutBound(self._bound(api, name, ways, options, check))

    def _gather(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> Any:
        if self._middleware and WENT_THROUGH not in options:
            return self._through("gather", self._gather, name, args, kwargs, options)
        if name in self._tuning.functions:
            options = self._tuning.options(name, args, kwargs, options)
        timeout, deadline = self._requests.time_for(name, options, here.get())
        template = self._requests.template(self.client_id, GATHER)
        headers = options.get("headers")
        outgoing = self._requests.make(name, args, kwargs, None, template, deadline, headers)
        request = PendingGather(self._calls, name, timeout, outgoing, self._roll_call)
        gathered = Gathered(request)
        note(options, request)
        self._calls.publish(request, deadline)
        return gathered
