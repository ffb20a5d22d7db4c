"""A cluster whose nodes reach one another through proxies, so that they can be kept from it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from tests.faults.proxy import Proxy
from tests.support.cluster import Cluster
from tests.support.names import Directory
from tests.support.rabbitmq import RabbitNode


class DivisibleCluster(Cluster):
    """A cluster with a proxy from each node to each other.  Clients reach every node directly."""

    def __init__(self, config: str = "", **settings: Any) -> None:
        self._stack = ExitStack()
        self._ports: dict[str, int] = {}
        # What each node is told of the others, by the name of the one that asks.
        self._told: dict[str, dict[str, int]] = {}
        super().__init__(config, **settings)
        self._ways: dict[tuple[str, str], Proxy] = {}
        for node in self.nodes:
            for other in self.others(node):
                way = self._stack.enter_context(Proxy(other.distribution_port))
                self._ways[node.name, other.name] = way
                self._told[node.name][other.name.partition("@")[0]] = way.port

    def _epmd_port(self, name: str) -> int:
        told = self._told[name] = {}
        return self._stack.enter_context(Directory(self._ports, told)).port

    def cut_off(self, node: RabbitNode) -> None:
        """Let nothing pass between a node and the others; nobody is told."""
        self._set(node, stalled=True)

    def heal(self, node: RabbitNode) -> None:
        """Let everything pass again, what was held up first."""
        self._set(node, stalled=False)

    def _set(self, node: RabbitNode, *, stalled: bool) -> None:
        for ends, way in self._ways.items():
            if node.name in ends:
                way.up.stalled = way.down.stalled = stalled

    def close(self) -> None:
        super().close()
        self._stack.close()
