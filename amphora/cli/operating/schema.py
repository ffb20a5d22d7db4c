"""`amphora schema`: a service as an OpenRPC or OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click
import msgspec

from amphora.cli.failures import Exit
from amphora.cli.operating.managing import asking
from amphora.cli.operating.offers import the_offer
from amphora.cli.output import show_json, show_line
from amphora.cli.settings import Settings, examples
from amphora.export.openapi import openapi
from amphora.export.openrpc import openrpc
from amphora.rpc.contract.types.compatibility import Offer

FORMATS: dict[str, Callable[[Mapping[str, Offer], str], dict[str, Any]]] = {
    "openrpc": openrpc,
    "openapi": openapi,
}


@click.command(
    epilog=examples(
        "amphora schema math --openapi > math.openapi.json",
        "amphora schema math --openrpc --json | jq .methods",
    )
)
@click.option("--openrpc", "form", flag_value="openrpc", help="As OpenRPC 1.3: for JSON-RPC.")
@click.option("--openapi", "form", flag_value="openapi", help="As OpenAPI 3.1: for HTTP.")
@asking
def schema(
    settings: Settings, namespace: str, worker: str | None, timeout: float, form: str | None
) -> int:
    """Print what a service offers as a document that other tools read.

    --json prints it in one line.
    """
    if form is None:
        raise click.UsageError("In which format? --openrpc or --openapi.")
    document = FORMATS[form](
        {namespace: the_offer(settings, namespace, worker, timeout)}, namespace
    )
    if settings.json:
        show_json(document)
    else:
        show_line(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
    return Exit.DONE
