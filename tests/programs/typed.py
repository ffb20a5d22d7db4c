"""A user's program, for mypy alone: what it knows of amphora, and which mistakes it finds.

`test_types.py` has it checked with --strict.  Each comment that ignores an error stands for one
that has to be found: mypy complains of those that ignore nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, assert_type

from amphora import (
    AmphoraError,
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    Bound,
    FanoutBound,
    Gathered,
    ManagementClient,
    Reply,
    Result,
    Session,
    Stream,
    spawn,
    wait,
)
from amphora.testing import Broker, Calls, Clock, MakeClient, MakeMocks, MakeServer, RecordedCall

# -- what calls return ----------------------------------------------------------------------------

client = AmqpRpcClient("math", url="amqp://127.0.0.1", timeout=5.0, heartbeat=10.0)
assert_type(client.call.add(1, 2), Any)
assert_type(client.call(timeout=5.0, routing_key="Alice").add(1, b=2), Any)
assert_type(client.call(function_name="a.b")(1), Any)
assert_type(client.defer.add(1, 2), Result)
assert_type(client.call(wait_for_server=0).add(1, 2), Any)
assert_type(client.defer(wait_publish=True).nested.add(1, 2), Result)
assert_type(client.defer.add(1, 2).get(timeout=5.0), Any)
client.defer.user(1).get()["name"].upper()
wait([client.defer.add(1, 2)], timeout=5.0)
assert_type(client.cast.log("text"), None)

client.call(tmeout=5).add(1, 2)  # type: ignore[call-arg]
client.call(timeout="5").add(1, 2)  # type: ignore[arg-type]
client.call(wait_for_server="5").add(1, 2)  # type: ignore[arg-type]
client.call(5).add(1, 2)  # type: ignore[arg-type]

everybody = AmqpRpcFanoutClient("math", session=client.session)
assert_type(everybody.gather.add(1, 2), Gathered)
assert_type(everybody.gather(timeout=1.0).add(1, 2), Gathered)
assert_type(everybody.defer.add(1, 2), Result)
for reply in everybody.gather.add(1, 2):
    assert_type(reply, Reply)
everybody.call(routing_key="Alice").add(1, 2)  # type: ignore[call-arg]
everybody.call(wait_for_server=1.0).add(1, 2)  # type: ignore[call-arg]
everybody.gather(wait_publish=True).add(1, 2)  # type: ignore[call-arg]
everybody.create_new_request_queue("Alice")  # type: ignore[attr-defined]

management = ManagementClient(url="amqp://127.0.0.1", timeout=1.0)
assert_type(management.ask("math", "ping"), Gathered)
management.call.ping()  # type: ignore[attr-defined]

# -- what settings are ----------------------------------------------------------------------------

AmqpRpcClient("math", serializer="jsn")  # type: ignore[arg-type]
AmqpRpcClient("math", when_full="block")  # type: ignore[arg-type]
AmqpRpcClient("math", tmeout=5.0)  # type: ignore[call-arg]
AmqpRpcClient("math", amqp_port="5672")  # type: ignore[arg-type]
AmqpRpcFanoutClient("math", serialiser="json")  # type: ignore[call-arg]
ManagementClient(time_out=1.0)  # type: ignore[call-arg]
AmqpRpcServer("math", concurrency=5, queue_type="quorum", amqp_host="localhost")
AmqpRpcServer("math", concurency=5)  # type: ignore[call-arg]
AmqpRpcServer("math", queue_type="quroum")  # type: ignore[arg-type]
AmqpRpcFanoutServer("math", traceback=True)  # type: ignore[call-arg]
Session("amqp://127.0.0.1", connect_timeout=1.0)
Session(heartbeet=10.0)  # type: ignore[call-arg]

# -- what functions stay --------------------------------------------------------------------------

server = AmqpRpcServer("math", session=Session())


@server.add_function
def add(a: int, b: int = 0) -> int:
    return a + b


@server.add_function("divide")
def div(a: float, b: float) -> float:
    return a / b


@server.add_function(name="x")
def named(a: int) -> str:
    return str(a)


@server.add_function(threadpool=True)
def slow(text: str) -> int:
    return len(text)


@server.add_function(ack="early")
def once(amount: int) -> bool:
    return amount > 0


@server.add_function(expected=(KeyError, ValueError), allow={"billing"}, timeout=None)
def careful(name: str) -> str:
    return name


@server.add_function("count", resumable=True)
def counting(most: int) -> Iterator[int]:
    yield from range(most)


@server.add_command("log_level")
def set_level(level: str) -> None:
    print(level)


server.add_function(once, name="z", ack="erly")  # type: ignore[call-overload]
server.add_function("once", once)  # type: ignore[call-overload]
server.add_function("once", "twice")  # type: ignore[call-overload]
server.add_function(5)  # type: ignore[call-overload]
server.add_function(timeout="5")  # type: ignore[call-overload]
assert_type(careful("x"), str)
assert_type(counting(3), Iterator[int])
assert_type(spawn(careful, "x").get(), str)
assert_type(once(1), bool)
assert_type(add(1, b=2), int)
assert_type(div(1, 2), float)
assert_type(named(1), str)
assert_type(slow("text"), int)
assert_type(server.add_function(named, name="y")(1), str)
named("1")  # type: ignore[arg-type]


@client.tune_function("show")
def to_user(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    return str(args[0])


tuning: Callable[[tuple[Any, ...], dict[str, Any]], str] = to_user

# -- what a server tells --------------------------------------------------------------------------

if server.state == "serving":
    print(server.processed, server.statistics.summary()["functions"]["add"]["p95"])
server.statistics.summary()["procesed"]  # type: ignore[typeddict-item]

# -- typed calls ----------------------------------------------------------------------------------


class MathAPI(Protocol):
    def add(self, a: int, b: int = ...) -> int: ...

    def count(self, most: int) -> Iterator[str]: ...

    def log(self, text: str) -> None: ...


class OtherAPI:
    def minus(self, a: int) -> int:
        raise NotImplementedError


math = client.bind(MathAPI, timeout=5.0)
assert_type(math, Bound[MathAPI])
assert_type(math.call.add(1, b=2), int)
assert_type(math.options(retries=3).call.add(1), int)
assert_type(math.defer(MathAPI.add)(1, 2), Result[int])
assert_type(math.defer(MathAPI.add, timeout=1.0)(1, b=2).get(), int)
assert_type(math.defer(MathAPI.add)(1).value, int | None)
assert_type(math.cast(MathAPI.log)("text"), None)
assert_type(math.call.count(3), Iterator[str])
assert_type(math.stream(MathAPI.count, credit=5)(3), Stream[str])
for text in math.stream(MathAPI.count)(3):
    assert_type(text, str)
assert_type(client.bind(OtherAPI).call.minus(1), int)
any_result: Result = math.defer(MathAPI.add)(1)
some: Result[object] = math.defer(MathAPI.add)(1)

math.call.add("1")  # type: ignore[arg-type]
math.call.ad(1)  # type: ignore[attr-defined]
math.defer(MathAPI.add)("1")  # type: ignore[arg-type]
math.defer(MathAPI.add)(1, 2, 3)  # type: ignore[call-arg]
math.defer(MathAPI.add, tmeout=1.0)  # type: ignore[call-arg]
math.defer(OtherAPI.minus)  # type: ignore[arg-type]
math.defer.add(1)  # type: ignore[attr-defined]
math.stream(MathAPI.add)  # type: ignore[arg-type]
math.gather(MathAPI.add)  # type: ignore[attr-defined]
math.options(retry=3)  # type: ignore[call-arg]

all_maths = everybody.bind(MathAPI)
assert_type(all_maths, FanoutBound[MathAPI])
assert_type(all_maths.gather(MathAPI.add, timeout=1.0)(1), Gathered[int])
assert_type(all_maths.gather(MathAPI.add)(1).values(), list[int])
for answer in all_maths.gather(MathAPI.add)(1):
    assert_type(answer.get(), int)
    assert_type(answer.value, int)
    assert_type(answer.error, AmphoraError | None)
assert_type(all_maths.defer(MathAPI.add)(1), Result[int])
all_maths.options(routing_key="Alice")  # type: ignore[call-arg]
all_maths.gather(MathAPI.add)("1")  # type: ignore[arg-type]
server.add_service(object(), api=MathAPI)


# -- tests of users -------------------------------------------------------------------------------


def test_it(
    amphora_broker: Broker,
    amphora_server: MakeServer,
    amphora_client: MakeClient,
    amphora_mock: MakeMocks,
    amphora_calls: Calls,
    amphora_clock: Clock,
) -> None:
    assert_type(amphora_server("math", len, concurrency=2), AmqpRpcServer)
    assert_type(
        amphora_server("math", server_class=AmqpRpcFanoutServer, raise_errors=True),
        AmqpRpcFanoutServer,
    )
    assert_type(amphora_client("math", timeout=5.0), AmqpRpcClient)
    assert_type(amphora_client("math", client_class=AmqpRpcFanoutClient), AmqpRpcFanoutClient)
    amphora_mock("math", len, AmqpRpcServer).len.return_value = 3
    for call in amphora_calls.of("math.len"):
        assert_type(call, RecordedCall)
    assert_type(amphora_calls.served, list[RecordedCall])
    amphora_broker.kill_connections(amphora_client("math"))
    amphora_broker.kill_connections(amphora_server("math"))
    amphora_clock.advance(60)
    amphora_clock.advance("60")  # type: ignore[arg-type]
    amphora_broker.kill_connections("math")  # type: ignore[arg-type]
