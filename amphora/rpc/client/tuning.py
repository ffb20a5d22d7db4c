"""Functions of the program that compute the options of each call: `tune_function`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amphora.errors import repr_of
from amphora.rpc.client.proxy import CallOptions
from amphora.rpc.contract import legacy
from amphora.transport.options import did_you_mean

# (args, kwargs) -> a routing key, options, or None
TuneFunction = Callable[[tuple[Any, ...], dict[str, Any]], str | dict[str, Any] | None]

TUNED_OPTIONS = CallOptions.__optional_keys__ - {"function_name"}


class Tuning:
    """The tune functions of one client.

    Attributes:
        functions: the tune functions by the name of the tuned function.
    """

    def __init__(self) -> None:
        self.functions: dict[str, TuneFunction] = {}

    def options(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], given: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the options of a tuned call; options given in the call win.

        Raises:
            TypeError: the tune function returned something else than options.
        """
        tuned: Any = self.functions[name](args, kwargs)
        if tuned is None:
            return given
        if isinstance(tuned, str):
            tuned = {"routing_key": tuned}
        if not isinstance(tuned, dict):
            raise TypeError(
                f"the tune function of {name} must return a routing key, a dict of options or"
                f" None, not {repr_of(tuned)}"
            )
        if "queue" in tuned:
            tuned = legacy.tuned_options(name, tuned)
        unknown = sorted(set(tuned) - TUNED_OPTIONS)
        if unknown:
            raise TypeError(
                f"the tune function of {name} returns unknown options {unknown}"
                f"{did_you_mean(unknown, TUNED_OPTIONS)}"
            )
        return {**tuned, **given}
