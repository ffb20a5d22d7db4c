"""What holds for the block of one `with` statement, or for each call of a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial, wraps
from types import TracebackType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Block(AbstractContextManager[None]):
    """A context manager for one `with` statement; or a decorator, for each call of the function.

    Args:
        name: how programs call it.
        make: makes what is entered and left.
    """

    def __init__(self, name: str, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._name = name
        self._make = make
        self._entered: AbstractContextManager[None] | None = None

    def __repr__(self) -> str:
        return f"<amphora.{self._name}>"

    def __enter__(self) -> None:
        if self._entered is not None:
            raise RuntimeError(
                f"each block needs an amphora.{self._name}() of its own, and this one has been"
                f" used: write it in the line of the with statement, with amphora.{self._name}(...)"
            )
        self._entered = self._make()
        self._entered.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        assert self._entered is not None  # noqa: S101 (Python enters it first)
        return self._entered.__exit__(kind, error, trace)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Have it hold for each call of a function."""

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._make():
                return function(*args, **kwargs)

        return call


def block(function: Callable[P, Iterator[None]]) -> Callable[P, Block]:
    """Make a function that yields once return a `Block`, as `contextlib.contextmanager` does."""
    holding = contextmanager(function)

    @wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> Block:
        return Block(function.__name__, partial(holding, *args, **kwargs))

    return make
