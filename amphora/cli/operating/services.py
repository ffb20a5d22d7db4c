"""`amphora services`: the workers of all namespaces."""

from __future__ import annotations

from typing import Any

import click

from amphora.cli.failures import Exit, Failure, settings_errors
from amphora.cli.lookup import find_queue
from amphora.cli.output import counted, show_error, show_json, show_note, show_table
from amphora.cli.settings import (
    Settings,
    examples,
    json_option,
    pass_settings,
    timeout_option,
    url_and_debug,
)
from amphora.rpc.client.management import DEFAULT_TIMEOUT, ManagementClient
from amphora.rpc.client.offers import offers_of_all
from amphora.rpc.contract import naming
from amphora.rpc.contract.checks import check_timeout
from amphora.transport.session import Session


def service(
    session: Session, namespace: str, workers: dict[str, Any], silent: int
) -> dict[str, Any]:
    """Return a namespace in the shape that --json prints.  Switches greenlets."""
    queue = find_queue(session, naming.request_queue(namespace))
    functions = {each["name"] for offer in workers.values() for each in offer["functions"]}
    return {
        "namespace": namespace,
        # There are several while a new version takes over.
        "versions": sorted({offer.get("version") or "" for offer in workers.values()} - {""}),
        "waiting": None if queue is None or queue.away else queue.messages,
        "silent": silent,
        "functions": sorted(functions),
        "workers": [
            {
                "worker": name,
                "version": offer.get("version", ""),
                "host": offer["host"],
                "pid": offer["pid"],
            }
            for name, offer in sorted(workers.items())
        ],
    }


@click.command(epilog=examples("amphora services", "amphora services --json | jq .namespace"))
@timeout_option(DEFAULT_TIMEOUT, "How long to wait for the answers, at most.")
@json_option
@url_and_debug
@pass_settings
def services(settings: Settings, timeout: float) -> int:
    """Show all namespaces of the vhost, with their workers and functions.

    Workers of an amphora before 1.0 are not found.  --json prints for each namespace {"namespace",
    "versions": [...], "waiting", "silent", "functions": [...], "workers": [{"worker", "version",
    "host", "pid"}]}.  "waiting" is null if there is no shared queue, and "silent" counts workers
    that did not answer.
    """
    with settings_errors(), settings.session(timeout) as session:
        seconds = check_timeout(timeout)
        with ManagementClient(session=session, identify=True) as management:
            found, silent = offers_of_all(management, seconds, thorough=True)
        if not found:
            raise Failure(Exit.NOBODY, "no worker of any namespace has answered")
        shown = [service(session, name, found[name], silent.get(name, 0)) for name in sorted(found)]
    if settings.json:
        for each in shown:
            show_json(each)
    else:
        show_services(shown)
    for name, missing in sorted(silent.items()):
        show_error(f"{counted(missing, 'worker')} of {name} did not answer within {seconds:g} s")
    return Exit.NO_ANSWER if silent else Exit.DONE


def show_services(shown: list[dict[str, Any]]) -> None:
    """Print a table of the namespaces, and one of all their workers."""
    versions = ["version"] if any(each["versions"] for each in shown) else []
    show_table(
        ("namespace", *versions, ">workers", ">waiting", "functions"),
        [
            (
                each["namespace"],
                *([", ".join(each["versions"]) or "-"] if versions else []),
                len(each["workers"]),
                "-" if each["waiting"] is None else each["waiting"],
                ", ".join(each["functions"]),
            )
            for each in shown
        ],
    )
    click.echo()
    show_table(
        ("worker", "namespace", *versions, "host", ">pid"),
        [
            (
                worker["worker"],
                each["namespace"],
                *([worker["version"] or "-"] if versions else []),
                worker["host"],
                worker["pid"],
            )
            for each in shown
            for worker in each["workers"]
        ],
    )
    show_note(f"{counted(sum(len(each['workers']) for each in shown), 'worker')} in all")
