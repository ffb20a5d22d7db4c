"""An object's methods as what an API says."""

from __future__ import annotations

from amphora.errors import repr_of
from amphora.rpc.contract.types.apis import Api
from amphora.rpc.contract.types.compatibility import Offer, differences
from amphora.rpc.contract.types.signatures import Handler
from amphora.rpc.functions.describing import Describer
from amphora.rpc.functions.functions import Functions
from amphora.rpc.functions.threads import Threads


def api_methods(service: object, api: Api) -> list[tuple[Handler, str]]:
    """Return the methods of an object that an API asks for, with their names for clients.

    Raises:
        TypeError: one is missing, or is not what the API says; each difference is named.
    """
    methods: list[tuple[Handler, str]] = []
    functions = Functions(type(service).__name__, Threads(1))
    for function in api.functions.values():
        method = getattr(service, function.attribute, None)
        if callable(method):
            functions.add(method, function.name)
            methods.append((method, function.name))
    describer = Describer(functions, False)
    offered = Offer(type(service).__name__, describer.functions(), describer.definitions)
    found = differences(api.offer(), offered)
    if found:
        raise TypeError(f"{repr_of(service)} is not what {api.title} says: {'; '.join(found)}")
    return methods
