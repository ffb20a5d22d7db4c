"""A class that says what a service offers: its methods are the functions.

    class MathAPI(Protocol):
        def sum_numbers(self, *numbers: float) -> float: ...
        def count(self, most: int) -> Iterator[int]: ...

Clients and servers can import it both.  A method is a stream if it is a generator function, or if
its hint says that it returns an `Iterator` or a `Generator`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from inspect import Signature
from typing import Any, TypeVar

from amphora.errors import WrongResult, printable, repr_of, text_of
from amphora.rpc.contract.reports import FunctionDescription
from amphora.rpc.contract.serializers import of_the_program
from amphora.rpc.contract.types.compatibility import Offer
from amphora.rpc.contract.types.descriptions import (
    describe_parameters,
    describe_result,
    is_stream_hint,
    signature_text,
    stream_parts,
)
from amphora.rpc.contract.types.hints import Converter, Unevaluated, Unmeetable, converter_of
from amphora.rpc.contract.types.schemas import Schemas
from amphora.rpc.contract.types.signatures import evaluate, signature_of

F = TypeVar("F", bound=Callable[..., Any])

_NAME = "__amphora_name__"
# How Python calls what it has in the place of a method that has overloads and nothing else.
_OVERLOADED = "_overload_dummy"
# The longest text about a result that does not fit, in characters.
MAX_TEXT = 2000


def function_name(name: str) -> Callable[[F], F]:
    """Give a method of an API another name for the servers, such as "send_message.sms".

    class MessagesAPI(Protocol):
        @function_name("send_message.sms")
        def send_sms(self, number: str, text: str) -> bool: ...

    Raises:
        TypeError: the name is no text.
    """
    if not isinstance(name, str):
        raise TypeError('the decorator takes the name: @function_name("send_message.sms")')

    def decorate(method: F) -> F:
        setattr(method, _NAME, name)
        return method

    return decorate


class ApiFunction:
    """One function of an API.

    Attributes:
        attribute: the name of the method.
        name: the name of the function at its server.
        signature: what callers pass.
        is_stream: whether it is called for its items.

    Raises:
        TypeError: nothing that arrives can be what its hint says, or the hint cannot be evaluated.
    """

    def __init__(self, api: type, attribute: str, method: Any, prefix: str) -> None:
        self.attribute = attribute
        self.method = getattr(api, attribute)
        function = getattr(method, "__func__", method)
        own = getattr(function, _NAME, attribute)
        self.name = f"{prefix}.{own}" if prefix else own
        self._told = f"{api.__name__}.{attribute}"
        self._function = function
        signature = signature_of(function, follow_wrapped=True)
        if signature is None:
            raise TypeError(f"{self._told} has no signature")
        if getattr(function, "__qualname__", "") == _OVERLOADED:
            raise TypeError(
                f"{self._told} has overloads alone, of which Python keeps no parameters: define it"
                " once more behind them, without @overload"
            )
        parameters = list(signature.parameters.values())
        if not isinstance(method, staticmethod):
            if not parameters:
                raise TypeError(f"{self._told} takes no self")
            parameters = parameters[1:]
        self.signature = signature.replace(parameters=parameters)
        hint = self._hint()
        self.is_stream = inspect.isgeneratorfunction(inspect.unwrap(function)) or is_stream_hint(
            hint
        )
        item, result = stream_parts(hint) if self.is_stream else (Any, hint)
        self._item, self._result = self._converter(item), self._converter(result)

    def __repr__(self) -> str:
        return f"<ApiFunction {self._told}>"

    def _hint(self) -> Any:
        annotation = self.signature.return_annotation
        if annotation is Signature.empty:
            return Any
        try:
            return evaluate(annotation, self._function)
        except Unevaluated as error:
            raise TypeError(
                f"the result of {self._told} has a hint that is not a type: {error}"
            ) from None

    def _converter(self, hint: Any) -> Converter | None:
        try:
            return converter_of(hint)
        except (Unmeetable, Unevaluated) as error:
            raise TypeError(f"nothing that arrives is what {self._told} returns: {error}") from None

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise TypeError if arguments do not fit the method's parameters."""
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{signature_text(self._told, self.signature)}: {error}") from None

    def result(self, value: Any) -> Any:
        """Return a result as the hint says.

        Raises:
            WrongResult: it does not fit.
        """
        return value if self._result is None else self._converted("result", self._result, value)

    def item(self, value: Any) -> Any:
        """Return an item of a stream as the hint says.

        Raises:
            WrongResult: it does not fit.
        """
        return value if self._item is None else self._converted("item", self._item, value)

    def _converted(self, what: str, convert: Converter, value: Any) -> Any:
        try:
            return convert(value)
        except Exception as error:  # noqa: BLE001
            # Users' classes are called here, and may raise anything.
            text = printable(text_of(error) or type(error).__name__, MAX_TEXT)
            told = f"the {what} is not what {self._told} says: {text}"
            raise WrongResult(told) from of_the_program(error)

    def describe(self, schemas: Schemas) -> FunctionDescription:
        """Return the description that a server with this function would give."""
        described: FunctionDescription = {
            "name": self.name,
            "signature": signature_text(self.name, self.signature),
            "parameters": describe_parameters(self.signature, self._function, schemas),
            "doc": inspect.getdoc(self._function) or "",
        }
        described.update(
            describe_result(self.signature, self._function, self.is_stream, schemas)  # type: ignore[typeddict-item]
        )
        if self.is_stream:
            described["stream"] = True
        return described


class Api:
    """The functions of a class, by the names of its methods.

    Args:
        api: the class; its methods whose names do not begin with `_` count, inherited ones too.
        prefix: put before the name of each function, with a dot.

    Raises:
        TypeError: it is no class, has no methods, or a hint of a result cannot be used.
    """

    def __init__(self, api: Any, prefix: str = "") -> None:
        if not isinstance(api, type):
            raise TypeError(f"an API is a class, not {repr_of(api)}")
        self.title = api.__name__
        self.functions = {
            name: ApiFunction(api, name, method, prefix) for name, method in _methods(api)
        }
        if not self.functions:
            raise TypeError(f"{self.title} has no methods, so there is nothing to call")

    def __repr__(self) -> str:
        return f"<Api {self.title}>"

    def find(self, method: Any) -> ApiFunction:
        """Return the function of a method, such as `MathAPI.sum_numbers`.

        Raises:
            TypeError: it is none of this API.
        """
        for function in self.functions.values():
            if function.method == method:
                return function
        raise TypeError(f"{repr_of(method)} is not a method of {self.title}")

    def offer(self) -> Offer:
        """Return what a service with these functions offers."""
        schemas = Schemas()
        described = [function.describe(schemas) for function in self.functions.values()]
        return Offer(self.title, described, schemas.definitions)


def _methods(api: type) -> Iterator[tuple[str, Any]]:
    for name in dir(api):
        static = inspect.getattr_static(api, name)
        if not name.startswith("_") and (
            inspect.isfunction(static) or isinstance(static, staticmethod | classmethod)
        ):
            yield name, static
