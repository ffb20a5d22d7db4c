"""A RabbitMQ cluster of the tests' own: three nodes on the loopback; nobody need be root.

Each node is a `RabbitNode` with ports of its own.  The first one has an epmd, which the others
share: so they find one another, and nobody else does.  They are told of each other in rabbitmq.conf
and come together when they start, all at once; it takes hardly longer than one of them alone.
Because three Erlang machines share this machine's few processors, each takes one and does not spin.
To cut the network between nodes, see tests/faults/partitions.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import gevent

from tests.support.rabbitmq import RabbitError, RabbitNode, make_name
from tests.support.waiting import wait_until

ERLANG = "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"
CONFIG = """\
cluster_formation.peer_discovery_backend = classic_config
{members}
cluster_formation.discovery_retry_limit = 4
cluster_formation.discovery_retry_interval = 200
cluster_partition_handling = {handling}
{more}
"""
# The function was given another name after 3.10.
RUNNING_NODES = (
    "case erlang:function_exported(rabbit_nodes, list_running, 0) of "
    "true -> rabbit_nodes:list_running(); false -> rabbit_nodes:all_running() end"
)
# The queues and where they are, as one string.
HOMES = """
lists:flatten([
    io_lib:format("~ts ~s|", [Name, case Pid of
        {_, Leader} -> Leader; _ when is_pid(Pid) -> node(Pid); _ -> "" end])
    || Info <- rabbit_amqqueue:info_all(<<"/">>, [name, pid]),
    {resource, _, queue, Name} <- [proplists:get_value(name, Info)],
    Pid <- [proplists:get_value(pid, Info)]
])
"""
# How long nodes may take to come together, in seconds.
PATIENCE = 90.0


class Cluster:
    """Three nodes that are one broker, used as a context manager or by `start()` and `close()`.

    Args:
        config: more lines for the rabbitmq.conf of each.
        size: how many nodes there are.
        handling: what they do about a partition, as RabbitMQ calls it.
        tick: the seconds after which a node that stays silent is given up by the others.

    Attributes:
        nodes: the nodes, in order.
    """

    def __init__(
        self,
        config: str = "",
        *,
        size: int = 3,
        handling: str = "pause_minority",
        tick: int = 60,
    ) -> None:
        self._names = [make_name() for _ in range(size)]
        members = "\n".join(
            f"cluster_formation.classic_config.nodes.{number} = {name}"
            for number, name in enumerate(self._names, 1)
        )
        text = CONFIG.format(members=members, handling=handling, more=config)
        erlang = f"{ERLANG} -kernel net_ticktime {tick}"
        self.nodes: list[RabbitNode] = []
        for name in self._names:
            self.nodes.append(
                RabbitNode(
                    text,
                    name=name,
                    erlang=erlang,
                    cookie=self.nodes[0].cookie if self.nodes else None,
                    epmd_port=self._epmd_port(name),
                )
            )

    def _epmd_port(self, name: str) -> int | None:
        """Return where a new node finds the others."""
        return self.nodes[0].epmd_port if self.nodes else None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Cluster {self.nodes!r}>"

    @property
    def url(self) -> str:
        """The URL with all hosts in it."""
        return self.url_of(self.nodes)

    @property
    def version(self) -> str:
        """RabbitMQ's version, such as "4.3.6"."""
        return self.nodes[0].version

    @property
    def ports(self) -> set[int]:
        """The ports of all nodes."""
        return {node.port for node in self.nodes}

    def url_of(self, nodes: Iterable[RabbitNode]) -> str:
        """Return the URL with the hosts of some nodes in it."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        return f"amqp://guest:guest@{hosts}/%2F"

    def others(self, *nodes: RabbitNode) -> list[RabbitNode]:
        """Return all nodes but these."""
        return [node for node in self.nodes if node not in nodes]

    def named(self, name: str) -> RabbitNode:
        """Return the node of a name."""
        return next(node for node in self.nodes if node.name == name)

    def start(self) -> None:
        """Start all nodes, and wait until they are one cluster."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_ready(PATIENCE)
        wait_until(self.is_whole, "all nodes are in one cluster", PATIENCE)

    def is_whole(self) -> bool:
        """Return whether all nodes run and each has all others beside it."""
        return all(self.running_beside(node) == set(self.nodes) for node in self.nodes)

    def running_beside(self, node: RabbitNode) -> set[RabbitNode]:
        """Return the nodes that one takes for running, itself among them; none if it is not."""
        if not node.running:
            return set()
        listed = node.eval(RUNNING_NODES, timeout=60.0)
        return {self.named(name) for name in re.findall(r"[\w-]+@localhost", listed)}

    def queues(self, part: str) -> dict[str, tuple[int, int]]:
        """Return what `RabbitNode.queues` returns, of the first node that runs."""
        return self._running.queues(part)

    @property
    def _running(self) -> RabbitNode:
        return next(node for node in self.nodes if node.running)

    def recover(self) -> None:
        """Make all nodes ready and one cluster, whatever was done to them."""
        for node in self.nodes:
            if node.running:
                node.thaw()
            else:
                node.launch()
        for node in self.nodes:
            node.wait_ready(PATIENCE)
        wait_until(self.is_whole, "all nodes are in one cluster again", PATIENCE)

    def forget(self, node: RabbitNode) -> None:
        """Have the others forget a node that is gone for ever."""
        alive = next(other for other in self.others(node) if other.running)
        alive.ctl("forget_cluster_node", node.name, timeout=60.0)

    def homes(self) -> dict[str, RabbitNode]:
        """Return the node that each queue is on, or that leads it if it is on several."""
        listed = self._running.eval(HOMES).strip('"[]').split("|")
        rows = [row.rsplit(" ", 1) for row in listed if row]
        return {name: self.named(node) for name, node in rows if node}

    def home_of(self, queue: str) -> RabbitNode:
        """Return the node that a queue is on, or that leads it if it is on several."""
        homes = self.homes()
        if queue not in homes:
            raise RabbitError(f"there is no queue {queue} in the cluster")
        return homes[queue]

    def close(self) -> None:
        """End all nodes.  Closing twice does nothing."""
        # The first one has the epmd of all.
        gevent.joinall([gevent.spawn(node.close) for node in self.nodes[1:]])
        self.nodes[0].close()
