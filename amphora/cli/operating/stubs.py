"""`amphora stubs`: a typed module for the callers of a service."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import click

from amphora.cli.failures import Exit, Failure
from amphora.cli.operating.managing import asking
from amphora.cli.operating.offers import find_offers, the_offer
from amphora.cli.output import show_error, show_json, show_note
from amphora.cli.settings import Settings, examples
from amphora.errors import printable, text_of
from amphora.export.stubs import stub
from amphora.rpc.contract.types.apis import Api
from amphora.rpc.contract.types.compatibility import Offer, differences


@click.command(
    epilog=examples(
        "amphora stubs math > math_client.py",
        "amphora stubs math --check math_client.py   # in CI: is it still so?",
    )
)
@click.option(
    "--check",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Print no module, but compare one with the service; fail if its callers would.",
)
@asking
def stubs(
    settings: Settings, namespace: str, worker: str | None, timeout: float, check: Path | None
) -> int:
    """Print a Python module with the functions of a service, typed.

    It has the service's classes, and its functions for calls, deferred calls, casts and streams.
    An unchanged service gives the same module.  --check imports FILE, and names each reason why its
    callers would fail; then the exit code is 1.  With --json it prints {"differences": [...]}.
    """
    if check is None:
        offer = the_offer(settings, namespace, worker, timeout)
        click.echo(stub(namespace, offer), nl=False)
        return Exit.DONE
    wanted = api_in(check)
    found: list[str] = []
    for offer in find_offers(settings, namespace, worker, timeout).values():
        for difference in differences(wanted, offer):
            told = f"{offer.title}: {difference}"
            if told not in found:
                found.append(told)
    if settings.json:
        show_json({"differences": found})
    elif not found:
        show_note(f"{wanted.title} is what {namespace} offers")
    else:
        for told in found:
            show_error(told)
    return Exit.FAILED if found else Exit.DONE


def api_in(file: Path) -> Offer:
    """Return the offer that the stub in a file expects of the service.

    Raises:
        Failure: it cannot be imported, or is not a stub.
    """
    # Its dataclasses look up their hints in the module of that name.
    name = f"amphora_stub_{file.stem}"
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise Failure(Exit.USAGE, f"{file} is not a Python module")
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        apis = [
            value
            for key, value in vars(module).items()
            if key.endswith("API") and isinstance(value, type) and value.__module__ == name
        ]
        if len(apis) != 1:
            raise Failure(
                Exit.USAGE,
                f"{file} is not a stub: it has {len(apis)} classes whose names end in API",
            )
        return Api(apis[0]).offer()
    except Failure:
        raise
    except Exception as error:
        text = printable(text_of(error) or "it says nothing")
        raise Failure(
            Exit.USAGE, f"{file} cannot be imported: {type(error).__name__}: {text}"
        ) from error
    finally:
        del sys.modules[name]
