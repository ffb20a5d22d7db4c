"""Suggestions of names on the broker, for misspelt or partly typed words."""

from __future__ import annotations

from typing import Any

import click
import gevent
from click.shell_completion import CompletionItem

from amphora.cli.failures import Exit, Failure
from amphora.cli.settings import Settings
from amphora.errors import AmphoraError
from amphora.rpc.client.management import ManagementClient
from amphora.rpc.client.offers import descriptions, offers_of_all
from amphora.rpc.contract import naming
from amphora.transport.options import did_you_mean
from amphora.transport.session import Session

# Seconds to wait for workers to describe themselves.
TIMEOUT = 1.0
# Seconds that a shell waits for the completion of a word.
PATIENCE = 3.0


def offered(session: Session, namespace: str | None) -> dict[str, dict[str, str]]:
    """Return the functions and their signatures, by namespace.  Switches greenlets.

    Args:
        namespace: the namespace to ask about; None for all.
    """
    found: dict[str, dict[str, str]] = {}
    try:
        answers: list[Any] = []
        if namespace is not None:
            answers = descriptions(session, namespace, TIMEOUT)
        else:
            with ManagementClient(session=session) as management:
                everybody, _ = offers_of_all(management, TIMEOUT)
            for workers in everybody.values():
                answers += workers.values()
        for answer in answers:
            functions = found.setdefault(answer["namespace"], {})
            functions |= {each["name"]: each["signature"] for each in answer["functions"]}
    except (AmphoraError, KeyError, TypeError):
        # Without permission or a description there is no advice.
        return {}
    return found


def about_function(session: Session, namespace: str, function: str, told: str) -> str:
    """Return the end of a sentence about a refused request: what the workers offer of that name.

    Switches greenlets.

    Args:
        told: what the server has said.  An older one says nothing of what the function takes.
    """
    if "; it takes " in told:
        return ""
    signatures = offered(session, namespace).get(namespace, {})
    if function not in signatures:
        return ""
    if "has no function" in told:
        return "; another of its workers has it"
    return f"; it is {signatures[function]}"


def missing_namespace(session: Session, namespace: str) -> Failure:
    """Return the failure for a namespace that was not found.  Switches greenlets."""
    names = offered(session, None)
    if namespace in names:
        return Failure(
            Exit.NOBODY,
            f"there was no namespace {namespace!r} on this broker yet; its first server has started"
            " just now: try again",
        )
    return Failure(
        Exit.NOBODY,
        f"there is no namespace {namespace!r} on this broker: no server of it was ever started"
        f"{did_you_mean([namespace], names)}",
    )


def complete_target(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the functions that begin with a text, as `namespace.function`.

    After --namespace they are without the namespace.
    """
    namespace = context.params.get("namespace")
    if namespace is not None:
        names = [*_found(context, namespace).get(namespace, {})]
    else:
        begun = incomplete.rpartition(".")[0].partition(".")[0]
        names = [
            f"{each}.{function}"
            for each, functions in _found(context, begun or None).items()
            for function in functions
        ]
    return _completions(names, incomplete)


def complete_namespace(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the namespaces that begin with a text."""
    return _completions([*_found(context, None)], incomplete)


def _found(context: click.Context, namespace: str | None) -> dict[str, dict[str, str]]:
    """Return what workers offer; nothing if there is no broker or it takes too long."""
    try:
        with gevent.Timeout(PATIENCE), context.ensure_object(Settings).session() as session:
            return offered(
                session, None if namespace is None else naming.check_namespace(namespace)
            )
    except (AmphoraError, ValueError, gevent.Timeout, click.UsageError):
        # A shell would show output in the middle of the line being typed.
        return {}


def _completions(names: list[str], incomplete: str) -> list[CompletionItem]:
    return [
        CompletionItem(name)
        for name in sorted(names)
        if name.startswith(incomplete) and name.isprintable() and " " not in name
    ]
