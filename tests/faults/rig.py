"""The test rig: servers and clients in processes of their own, a proxy, a broker, and the books.

    def test_...(rig):
        rig.serve()
        rig.call(10_000, rate=300)
        with rig.fault("all connections closed"):
            node.close_all_connections("test")
        rig.settle(duplicates=100)

`settle` waits until all callers are done, stops the servers, adds up the ledger, prints it, and
fails if a promise was broken or no fault was injected.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import gevent

from amphora import AmphoraError, AmqpRpcClient, AmqpRpcServer, testing
from amphora.rpc.functions.terms import Ack
from tests.faults import whole
from tests.faults.ledger import (
    HUNG_AFTER,
    RECOVERY,
    SLACK,
    Allowed,
    Ended,
    Ledger,
    answer_to,
    broken_promises,
)
from tests.faults.proxy import Proxy
from tests.support.cluster import Cluster
from tests.support.processes import PythonProcess
from tests.support.rabbitmq import RabbitNode

PROGRAMS = Path(__file__).parent / "programs"
HEARTBEAT = 4
PREFETCH = 16
CALLERS = 64
BODY = 1000
TIMEOUT = 30.0
# What no process may print: greenlets and finalizers that died of something unforeseen.
NOISE = re.compile(
    r"Traceback|Exception ignored|failed with|Error in sys.excepthook|internal error"
)
ESTABLISHED = "01"
# Seconds in which everything has to be as before, when all is over.
QUIET = 12.0
# Seconds that the last handlers may take.
STOP = 5.0
# Seconds that callers go on after an outage that ends the case, at most.
FIRST_ANSWER = whole(10.0, 10.0 * SLACK)


class Rig:
    """One case.

    Args:
        broker: what is between clients and servers.
        folder: for the files of this case.
        namespace: of this case alone.
        seed: of everything that is left to chance.

    Attributes:
        ack: when the requests of the handler `work` are acknowledged.  With "early" it runs at
            most once, and calls may end with ServerLost; clients then have `liveness`.
    """

    def __init__(
        self,
        broker: RabbitNode | Cluster | testing.Broker,
        folder: Path,
        namespace: str,
        seed: int,
    ) -> None:
        self.broker = broker
        self.namespace = namespace
        self.random = random.Random(seed)
        self.seed = seed
        self.ack: Ack = "done"
        self.ledger = Ledger()
        self.servers: list[PythonProcess] = []
        self.clients: list[PythonProcess] = []
        self.settled = False
        self._folder = folder
        self._stack = ExitStack()
        self._endless: set[PythonProcess] = set()
        self._answered_when_back = 0
        self._journals: list[Path] = []
        self._executions: list[Path] = []
        self._clients_here: list[AmqpRpcClient] = []
        self._servers_here: list[AmqpRpcServer] = []
        self._calls_here = 0

    def exchange(self, kind: str) -> str:
        """Return the name of the exchange for requests or for responses."""
        return f"rpc_{self.namespace}_{kind}"

    @property
    def request_queue(self) -> str:
        """The name of the queue that all servers share."""
        return f"rpc_{self.namespace}_request"

    def tell(self) -> None:
        """Print what the processes have printed, and what the servers wait for."""
        for server in self.servers:
            if server.returncode is None:
                server.signal(signal.SIGUSR1)
        gevent.sleep(1.0)
        for process in (*self.clients, *self.servers):
            print(f"{process!r}:\n{process.output}\n")

    def close(self) -> None:
        """End what still runs."""
        self._stack.close()

    # -- who takes part ---------------------------------------------------------------------------

    def proxy(self) -> Proxy:
        """Return a new proxy in front of the broker."""
        assert not isinstance(self.broker, Cluster)
        assert self.broker.port is not None
        return self._stack.enter_context(Proxy(self.broker.port))

    def serve(
        self, count: int = 2, *, url: str | None = None, wait: bool = True, **settings: Any
    ) -> list[PythonProcess]:
        """Start servers; `settings` are those of AmqpRpcServer."""
        settings = {"concurrency": PREFETCH, "heartbeat": HEARTBEAT, **settings}
        started = []
        for _ in range(count):
            path = self._folder / f"executions-{len(self._executions)}"
            self._executions.append(path)
            asked = {
                "namespace": self.namespace,
                "url": url or self.broker.url,
                "executions": str(path),
                "ack": self.ack,
                "server": settings,
            }
            started.append(self._start("server", asked))
        self.servers += started
        if wait:
            for server in started:
                server.wait_for("ready", 60.0)
        return started

    def call(
        self,
        calls: int | None = None,
        *,
        url: str | None = None,
        rate: float = 0,
        callers: int = CALLERS,
        timeout: float = TIMEOUT,
        pause: float = 0,
        body: int = BODY,
        size: int = 0,
        kind: str = "call",
        linger: bool = False,
        expires: float | None = None,
        liveness: float | None = None,
        **settings: Any,
    ) -> PythonProcess:
        """Start a client that makes `calls` calls, or goes on until `settle` if that is None.

        Args:
            rate: calls a second, 0 for as many as can be.
            callers: how many greenlets make them.
            pause: seconds that the handler takes, or a stream between two items.
            body: the size of the request, in bytes.
            size: the size of the answer, in bytes; of a stream, the number of its items.
            kind: "call", "cast" or "stream".
            linger: keep the client open when all calls are made, until `settle`.
            expires: seconds that the response queue is kept without its client.
            liveness: the option of the calls; a second where `work` runs at most once.
            settings: those of AmqpRpcClient.
        """
        self.ledger.timeout = timeout
        name = f"client{len(self._journals)}"
        path = self._folder / f"journal-{name}"
        self._journals.append(path)
        asked = {
            "name": name,
            "namespace": self.namespace,
            "url": url or self.broker.url,
            "journal": str(path),
            "seed": self.seed,
            "calls": calls,
            "rate": rate,
            "callers": callers,
            "timeout": timeout,
            "pause": pause,
            "body": body,
            "size": size,
            "kind": kind,
            "linger": linger,
            "expires": expires,
            "liveness": 1.0 if liveness is None and self.ack == "early" else liveness,
            "client": {"heartbeat": HEARTBEAT, **settings},
        }
        client = self._start("client", asked)
        client.wait_for("ready", 60.0)
        self.clients.append(client)
        if calls is None or linger:
            self._endless.add(client)
        return client

    def _start(self, program: str, asked: dict[str, Any]) -> PythonProcess:
        script = PROGRAMS / f"{program}.py"
        return self._stack.enter_context(PythonProcess(script, json.dumps(asked)))

    # -- who takes part in this process -----------------------------------------------------------

    def server_here(self, *functions: Callable[..., Any], **settings: Any) -> AmqpRpcServer:
        """Return a server in this process that serves; it has the handler `work` as well.

        `settings` are those of AmqpRpcServer.  It ends with the case.
        """
        settings.setdefault("url", None if "session" in settings else self.broker.url)
        if "session" not in settings:
            settings.setdefault("heartbeat", HEARTBEAT)
        settings.setdefault("concurrency", PREFETCH)
        server = AmqpRpcServer(self.namespace, **settings)
        self._stack.callback(server.stop, timeout=0)

        def work(call_id: str, pause: float = 0) -> list[str]:
            self.executed_here(call_id)
            if pause:
                gevent.sleep(pause)
            return [answer_to(call_id), ""]

        server.add_function(work, ack=self.ack)
        for function in functions:
            server.add_function(function)
        server.serve()
        self._servers_here.append(server)
        return server

    def executed_here(self, call_id: str) -> None:
        """Note an execution by a handler in this process."""
        self.ledger.executions.setdefault(call_id, []).append(monotonic())

    def client_here(self, **settings: Any) -> AmqpRpcClient:
        """Return a client in this process; `settings` are those of AmqpRpcClient.

        It ends with the case.
        """
        settings.setdefault("url", None if "session" in settings else self.broker.url)
        if "session" not in settings:
            settings.setdefault("heartbeat", HEARTBEAT)
        settings.setdefault("timeout", TIMEOUT)
        self.ledger.timeout = settings["timeout"]
        client = AmqpRpcClient(self.namespace, **settings)
        self._stack.callback(client.close)
        self._clients_here.append(client)
        return client

    def begin_here(self) -> str:
        """Note that a call begins in this process, and return its id."""
        self._calls_here += 1
        call_id = f"here-{self._calls_here}"
        self.ledger.begun[call_id] = monotonic()
        return call_id

    def one_here(
        self, client: AmqpRpcClient, *args: Any, function: str = "work", **options: Any
    ) -> Ended:
        """Make a call in this greenlet, note it in the ledger, and return how it ended."""
        call_id = self.begin_here()
        call = getattr(client.call(**options), function)
        try:
            with gevent.Timeout(self.ledger.timeout + HUNG_AFTER) as limit:
                right = call(call_id, *args)[0] == answer_to(call_id)
            ended = Ended(monotonic(), "ok" if right else "wrong")
        except AmphoraError as error:
            ended = Ended(monotonic(), type(error).__name__, error.executed, str(error))
        except gevent.Timeout as raised:
            if raised is not limit:
                raise
            ended = Ended(monotonic(), "hung")
        self.ledger.ended[call_id] = ended
        return ended

    def many_here(
        self, client: AmqpRpcClient, count: int, *args: Any, **options: Any
    ) -> list[gevent.Greenlet]:
        """Make calls in greenlets of their own, which return how they ended."""
        return [gevent.spawn(self.one_here, client, *args, **options) for _ in range(count)]

    def forsake(self, client: PythonProcess) -> None:
        """Kill a client: nobody hears the ends of its calls any more."""
        number = self.clients.index(client)
        self.ledger.forsaken.append(f"client{number}-")
        client.kill()

    # -- what happens to them ---------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port of the broker, which is one node."""
        assert not isinstance(self.broker, Cluster)
        assert self.broker.port is not None
        return self.broker.port

    def fault(self, what: str) -> None:
        """Write down that a fault is being injected."""
        self.ledger.fault(what)

    @contextmanager
    def outage(self, what: str) -> Iterator[None]:
        """Note a fault in which the broker cannot be reached, from here to the end of the block."""
        began = monotonic()
        self.ledger.fault(what)
        yield
        now = monotonic()
        self._answered_when_back = self.answered
        self.ledger.back.append((now, now - began))

    def wait_for_executions(self, count: int, timeout: float = 60.0) -> None:
        """Wait until the handlers of the processes have run so often."""
        with gevent.Timeout(timeout, TimeoutError(f"not {count} executions in {timeout:g} s")):
            while self.executed < count:
                gevent.sleep(0.1)

    def wait_for_answers(self, count: int, timeout: float = 60.0) -> None:
        """Wait until so many calls have ended since the case began."""
        with gevent.Timeout(timeout, TimeoutError(f"not {count} answers within {timeout:g} s")):
            while self.answered < count:
                gevent.sleep(0.1)

    @property
    def answered(self) -> int:
        """How many calls have ended so far, in whatever way."""
        written = [path.read_bytes() for path in self._journals if path.exists()]
        return sum(text.count(b"\ne ") for text in written)

    @property
    def executed(self) -> int:
        """How many executions there were so far."""
        return sum(path.read_bytes().count(b"\n") for path in self._executions if path.exists())

    @contextmanager
    def measured_processor(self, processes: list[PythonProcess]) -> Iterator[None]:
        """Measure how much of a processor each of the processes takes during the block."""
        before = [processor_seconds(process.pid) for process in processes]
        began = monotonic()
        yield
        lasted = monotonic() - began
        for process, spent in zip(processes, before, strict=True):
            share = (processor_seconds(process.pid) - spent) / lasted
            self.ledger.told.append({"cpu_while_down": share})
            most = max(share, float(self.ledger.figures.get("processor while down", 0)))
            self.ledger.figures["processor while down"] = round(most, 4)

    # -- the end ----------------------------------------------------------------------------------

    def settle(self, *, within: float = 120.0, **allowed: Any) -> Ledger:
        """Wait for the callers, stop the servers, and hold the ledger against the promises.

        Args:
            within: seconds that the callers may still take.
            allowed: the fields of `Allowed`.
        """
        ledger = self.ledger
        if self.ack == "early":
            allowed["duplicates"] = 0
            allowed["errors"] = (*allowed.get("errors", ()), "ServerLost")
            # Their clients are told who begins, so that what has piled up takes longer.
            allowed["slower"] = True
        endless = [client for client in self._endless if client.returncode is None]
        if endless and ledger.back and allowed.get("recovery", RECOVERY) is not None:
            # The ledger asks when the first answer came after the last outage.
            with suppress(TimeoutError):
                self.wait_for_answers(self._answered_when_back + 1, FIRST_ANSWER)
        for client in endless:
            client.terminate()
        for client in self.clients:
            if not self._was_killed(client):
                self._wait_for_end(client, within)
        for server in self.servers:
            if server.returncode is None:
                server.terminate()
        for server in self.servers:
            if not self._was_killed(server):
                self._wait_for_end(server, 60.0)
        self._read_books()
        for client_here in self._clients_here:
            ledger.told.append(
                {
                    "unexpected_responses": client_here.unexpected_responses,
                    "pending": client_here.pending,
                }
            )
        for server_here in self._servers_here:
            server_here.stop(timeout=STOP)
        # Closes what is in this process.
        self._stack.close()
        ledger.remains += self._remains()
        self.settled = True
        if isinstance(self.broker, Cluster):
            silences = sorted(ledger.silences().values(), reverse=True)
            ledger.figures["s without an answer"] = " / ".join(f"{s:.1f}" for s in silences)
            ledger.figures["untrue"] = len(ledger.untrue)
        broken = broken_promises(ledger, Allowed(**allowed))
        assert ledger.faults, "no fault was injected"
        assert not broken, "\n".join(["promises were broken:", *broken])
        return ledger

    def _was_killed(self, process: PythonProcess) -> bool:
        return process.returncode is not None and process.returncode < 0

    def _wait_for_end(self, process: PythonProcess, within: float) -> None:
        process.wait(within)
        told = [line for line in process.lines if line.startswith("told ")]
        self.ledger.told += [json.loads(line.removeprefix("told ")) for line in told]

    def _read_books(self) -> None:
        for path in self._journals:
            self.ledger.read_journal(path)
        for path in self._executions:
            self.ledger.read_executions(path)
        for process in (*self.clients, *self.servers):
            self.ledger.noise += [line for line in process.lines if NOISE.search(line)]

    def books(self) -> Ledger:
        """Return the ledger as far as it is written now, as for a case that fails."""
        if not self.settled:
            self._read_books()
        return self.ledger

    def _remains(self) -> list[str]:
        """Return what is left on the broker when everybody has gone, after up to 10 seconds."""
        deadline = monotonic() + QUIET
        while (found := self._found()) and monotonic() < deadline:
            # Also because a quorum queue's numbers are some seconds old.
            gevent.sleep(0.5)
        return found

    def _found(self) -> list[str]:
        connections = self.connections()
        found = [f"{connections} connections at the broker"] if connections else []
        for queue, (messages, consumers) in self.queues().items():
            # A client whose node went leaves the queue that it had there, which expires.
            expires = isinstance(self.broker, Cluster) and queue.endswith("_response")
            # What a killed worker was told expires in half a minute.
            forgotten = queue.endswith("_control") and not consumers
            if messages and not expires and not forgotten:
                found.append(f"{messages} messages in {queue}")
            if consumers:
                found.append(f"{consumers} consumers of {queue}")
            if queue.endswith("_response") and not expires:
                found.append(f"the queue {queue}")
        return found

    def connections(self) -> int:
        """Return how many connections the broker has."""
        broker = self.broker
        ports = broker.ports if isinstance(broker, Cluster) else {broker.port}
        return sum(local in ports for local in established_ports())

    def queues(self) -> dict[str, tuple[int, int]]:
        """Return the messages and the consumers of each queue of the case."""
        if not isinstance(self.broker, testing.Broker):
            return self.broker.queues(self.namespace)
        queues = self.broker.node.vhosts["/"].topology.queues
        return {
            name: (queue.message_count + queue.unacked_count, queue.consumer_count)
            for name, queue in queues.items()
            if self.namespace in name
        }


def processor_seconds(pid: int) -> float:
    """Return how many seconds a process has used of a processor so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def established_ports() -> list[int]:
    """Return the local ports of this machine's established TCP connections."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == ESTABLISHED]
