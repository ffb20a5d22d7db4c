"""The functions that a server offers, by exact name.

Only functions that were added can be called: a request's name is looked up in one dict, and never
resolved as a path, an attribute or a module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Unpack

from amphora.errors import WrongRequest, is_a, printable, repr_of
from amphora.rpc.contract.types.signatures import Handler, check_bound
from amphora.rpc.functions.parameters import Misfit, Parameters
from amphora.rpc.functions.terms import Terms, checked_terms
from amphora.rpc.functions.threads import Threads
from amphora.rpc.functions.unfinished import FINISHED, check_function, check_result, is_stream
from amphora.transport.options import did_you_mean

# How long a name may be, and how many functions there may be, to be compared.
MOST_COMPARED = 100
# How many of them an error shows.
MOST_NAMED = 10


class Function:
    """One function, with the checks of its arguments.

    Arguments are checked and converted by the type hints: a text may become a date, a dict a
    dataclass.  An argument without a hint is passed unchanged.
    """

    def __init__(
        self,
        name: str,
        handler: Handler,
        threads: Threads | None = None,
        terms: Terms | None = None,
    ) -> None:
        self.name = name
        self.handler = handler
        self.terms = terms or {}
        # The logins that may call it, None for all.
        self.allow = self.terms.get("allow")
        # What it raises as an answer, and not because of a fault.
        self.expected: Any = self.terms.get("expected", ())
        # Whether it may be ended while it runs, None for what the server says.  A thread cannot be
        # ended, but told.
        self.cancellable = self.terms.get("cancellable")
        self.in_thread = threads is not None
        # Whether it runs at most once, and its requests are acknowledged before it begins.
        self.early = self.terms.get("ack") == "early"
        # Whether it is called for its items.
        self.is_stream = is_stream(handler)
        if self.is_stream and self.cancellable is None:
            self.cancellable = True
        # How many of its runs there may be at once.
        self.concurrency = self.terms.get("concurrency")
        # Seconds for which it may run.
        self.timeout = self.terms.get("timeout")
        self.resumable = bool(self.terms.get("resumable"))
        self._check_terms()
        # A lambda, because an argument of the handler may have any name.
        self._run = (
            handler
            if threads is None
            else lambda *args, **kwargs: threads.run(
                handler, args, kwargs, keep=self.concurrency is not None
            )
        )
        check_function(name, handler)
        self._parameters = Parameters(name, handler)
        self.signature = self._parameters.signature
        # How many positional arguments certainly fit; no number does if more is to be checked.
        fitting = self._parameters.quick_range() or range(1, 1)
        self._fewest, self._most = fitting.start, fitting.stop - 1

    def __repr__(self) -> str:
        return f"<Function {self.name}>"

    def _check_terms(self) -> None:
        """Raise TypeError for terms that a stream cannot have, or only a stream."""
        if not self.is_stream:
            if self.resumable:
                raise TypeError(
                    f"{self.name} is not a generator function, and only those are resumable"
                )
            return
        if self.in_thread:
            raise TypeError(f"{self.name} is a generator function, which cannot run in a thread")
        if self.early:
            raise TypeError(f"{self.name} is a stream, which is acknowledged when it begins anyway")
        if self.timeout is not None:
            raise TypeError(
                f"{self.name} is a stream, which its client may read for any time: it cannot have a"
                " timeout of its own"
            )

    def call(self, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Call the function and return its result.

        Raises:
            Misfit: the arguments do not fit; the function was not called.
            Unfinished: it returned work that is not done, such as a coroutine.
        """
        try:
            if self._fewest <= len(args) <= self._most and not kwargs:
                result = self._run(*args)
            else:
                args, kwargs = self._parameters.fit(args, kwargs)
                result = self._run(*args, **kwargs)
        except TypeError as error:
            if self._parameters.refused(error):
                raise Misfit(f"{self.name}: {error}") from error
            raise
        if not self.is_stream and type(result) not in FINISHED:
            check_result(self.name, result)
        return result


class Functions:
    """The functions of one server.

    Args:
        threads: the threads for functions with `threadpool`.

    Attributes:
        limited: True if there is one of which only so many runs may be at once.
        by_name: the functions, by the names for clients.
        early: True if there is one that runs at most once.
    """

    def __init__(self, namespace: str, threads: Threads) -> None:
        self.namespace = namespace
        self.limited = False
        self.early = False
        self.threads = threads
        self.by_name: dict[str, Function] = {}

    def __iter__(self) -> Iterator[Function]:
        return iter(self.by_name.values())

    def __len__(self) -> int:
        return len(self.by_name)

    def add(self, handler: Handler, name: str | None = None, **terms: Unpack[Terms]) -> None:
        """Offer a function under a name, its own by default, on some terms.

        Raises:
            TypeError: it cannot be called, is a method without its object, has no name, can only
                return work that is not done (as an async def function does), or needs what no
                client can send.
            ValueError: the name is taken, empty or longer than 200 characters; or a term has no
                such value.
        """
        self._offer([self._made(handler, name, **terms)])

    def add_all(self, handlers: Iterable[tuple[Handler, str | None]]) -> None:
        """Offer functions under names, or none of them if one cannot be offered.

        Raises:
            TypeError, ValueError: as for `add`; or two of them have one name.
        """
        self._offer([self._made(handler, name) for handler, name in handlers])

    def _made(self, handler: Handler, name: str | None, **terms: Unpack[Terms]) -> Function:
        if not callable(handler):
            raise TypeError(
                f"only something that can be called can be added, not {repr_of(handler)}"
            )
        check_bound(handler)
        if name is None:
            name = getattr(handler, "__name__", None)
            if name is None or name == "<lambda>":
                raise TypeError(f"{repr_of(handler)} has no name of its own; give one with name=")
        if not isinstance(name, str):
            raise TypeError(f"a function's name must be text, not {repr_of(name)}")
        if not name or len(name) > 200:
            raise ValueError(
                f"a function's name must have 1 to 200 characters, not {repr_of(name)}"
            )
        threads = self.threads if terms.get("threadpool") else None
        return Function(name, handler, threads, checked_terms(terms))

    def _offer(self, functions: list[Function]) -> None:
        taken = set(self.by_name)
        for function in functions:
            if function.name in taken:
                raise ValueError(f"{self.namespace} has a function {function.name!r} already")
            taken.add(function.name)
        for function in functions:
            self.by_name[function.name] = function
            if function.concurrency is not None:
                self.limited = True
            if function.early:
                self.early = True

    def expects(self, name: str, error: BaseException) -> bool:
        """Return whether an exception is an answer of a function, and no fault."""
        function = self.by_name.get(name)
        return function is not None and is_a(error, function.expected)

    def find(self, name: str) -> Function:
        """Return the function of that name.

        Raises:
            WrongRequest: there is none.
        """
        function = self.by_name.get(name)
        if function is None:
            raise WrongRequest(
                f"{self.namespace} has no function {printable(name, 100)!r}{self._instead(name)}"
            )
        return function

    def _instead(self, name: str) -> str:
        # Anyone may send such names: comparing them must stay cheap.
        if len(name) > MOST_COMPARED or len(self.by_name) > MOST_COMPARED:
            return ""
        return did_you_mean([name], self.by_name) or f"; it has {self.names(MOST_NAMED) or 'none'}"

    def names(self, most: int) -> str:
        """Return the first of their names as text, and how many more there are; "" for none."""
        shown = sorted(self.by_name)[:most]
        more = len(self.by_name) - len(shown)
        return ", ".join([*shown, f"{more} more"] if more else shown)
