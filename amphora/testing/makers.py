"""The types of the pytest fixtures, for hints in tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, overload

from amphora.rpc.client.client import AmqpRpcClient
from amphora.rpc.server.server import AmqpRpcServer
from amphora.testing.mocks import Mocks

C = TypeVar("C")
S = TypeVar("S")


class MakeServer(Protocol):
    """The type of `amphora_server`: makes servers that serve at once."""

    @overload
    def __call__(
        self,
        namespace: str,
        *functions: Callable[..., Any],
        server_class: type[S],
        raise_errors: bool = False,
        **settings: Any,
    ) -> S: ...

    @overload
    def __call__(
        self,
        namespace: str,
        *functions: Callable[..., Any],
        raise_errors: bool = False,
        **settings: Any,
    ) -> AmqpRpcServer: ...


class MakeClient(Protocol):
    """The type of `amphora_client`: makes clients."""

    @overload
    def __call__(self, namespace: str, *, client_class: type[C], **settings: Any) -> C: ...

    @overload
    def __call__(self, namespace: str, **settings: Any) -> AmqpRpcClient: ...


class MakeMocks(Protocol):
    """The type of `amphora_mock`: makes servers with mocks in place of functions."""

    def __call__(self, namespace: str, *real: Callable[..., Any] | type, **settings: Any) -> Mocks:
        """Make a server, with the settings of `AmqpRpcServer`; see `add_mocks`."""
