"""`amphora queue`: the request queues of a namespace."""

from __future__ import annotations

import click

from amphora.cli.failures import PRECONDITION_FAILED, Exit, Failure, settings_errors
from amphora.cli.lookup import TIMEOUT, count_workers, find_queue, unknown_namespace
from amphora.cli.output import counted, show_json, show_note, show_table
from amphora.cli.settings import Settings, examples, json_option, pass_settings, url_and_debug
from amphora.errors import ChannelClosed
from amphora.rpc import naming
from amphora.rpc.client import AmqpRpcClient


@click.group()
@url_and_debug
def queue() -> None:
    """List, create and remove request queues."""


@queue.command(
    "list",
    epilog=examples("amphora queue list math", "amphora queue list messages Alice Bob --json"),
)
@click.argument("namespace")
@click.argument("labels", nargs=-1, metavar="[LABEL]...")
@json_option
@url_and_debug
@pass_settings
def list_queues(settings: Settings, namespace: str, labels: tuple[str, ...]) -> int:
    """Show a namespace's queues: the requests that wait, and who takes them.

    AMQP can only tell about queues whose names are known: the queue that all workers share, and
    those of the LABELs given.  To see all queues use rabbitmqctl list_queues.  Requests that a
    worker has taken and not finished are not among those that wait.

    --json prints for each {"queue", "label", "exists", "messages", "consumers"}; the label of the
    shared queue is null.  A LABEL without a queue makes the exit code 6.
    """
    with settings_errors(), settings.session() as session:
        names: dict[str | None, str] = {
            None: naming.request_queue(naming.check_namespace(namespace))
        }
        names |= {label: naming.labelled_queue(namespace, label) for label in labels}
        found = {label: find_queue(session, name) for label, name in names.items()}
        workers = count_workers(session, namespace)
    if not labels and found[None] is None and not workers:
        raise unknown_namespace(namespace)
    rows = []
    for label, name in names.items():
        there = found[label]
        rows.append(
            {
                "queue": name,
                "label": label,
                "exists": there is not None,
                "messages": there.messages if there else 0,
                "consumers": there.consumers if there else 0,
            }
        )
    missing = [label for label in labels if found[label] is None]
    if settings.json:
        for row in rows:
            show_json(row)
    else:
        show_table(
            ("queue", "label", ">waiting", ">consumers"),
            [
                (row["queue"], row["label"] or "", row["messages"], row["consumers"])
                for row in rows
                if row["exists"]
            ],
        )
        show_note(f"{counted(workers, 'worker')} of {namespace}")
        for label in missing:
            show_note(f"there is no queue for {label!r}")
    return Exit.NOBODY if missing else Exit.DONE


@queue.command(
    epilog=examples(
        "amphora queue create messages Alice",
        "amphora queue create messages Alice --expires 3600",
        "amphora queue create orders large --routing-key orders.large",
    )
)
@click.argument("namespace")
@click.argument("label")
@click.option("--routing-key", metavar="KEY", help="The key of its requests.  [default: LABEL]")
@click.option(
    "--expires",
    type=float,
    metavar="SECONDS",
    help="Delete it, with what waits in it, when nobody received from it for so long."
    "  [default: never]",
)
@json_option
@url_and_debug
@pass_settings
def create(
    settings: Settings,
    namespace: str,
    label: str,
    routing_key: str | None,
    expires: float | None,
) -> int:
    """Create the request queue for a key, so that requests with that key wait in it.

    Servers take them with receive_from_queue(LABEL).  Creating one that is there with the same
    settings changes nothing.  --json prints {"queue": ..., "label": ...}.
    """
    with settings_errors(), settings.session() as session:
        client = AmqpRpcClient(naming.check_namespace(namespace), session=session)
        with client:
            client.create_new_request_queue(label, routing_key, x_expires=expires)
    if settings.json:
        show_json({"queue": naming.labelled_queue(namespace, label), "label": label})
    return Exit.DONE


@queue.command(epilog=examples("amphora queue remove messages Alice"))
@click.argument("namespace")
@click.argument("label")
@click.option("--force", is_flag=True, help="Also if requests wait in it; they are lost.")
@json_option
@url_and_debug
@pass_settings
def remove(settings: Settings, namespace: str, label: str, force: bool) -> int:
    """Delete the request queue for a key.

    It is not deleted while requests wait in it, unless --force is given.  --json prints
    {"queue", "label", "lost"}: how many requests were dropped.
    """
    with settings_errors(), settings.session() as session:
        name = naming.labelled_queue(naming.check_namespace(namespace), label)
        if find_queue(session, name) is None:
            raise Failure(Exit.NOBODY, f"{namespace} has no queue for {label!r}")
        try:
            lost = session.operate(
                lambda channel: channel.queue_delete(name, if_empty=not force), TIMEOUT
            )
        except ChannelClosed as error:
            if error.code != PRECONDITION_FAILED:
                raise
            raise Failure(
                Exit.REFUSED, f"requests wait in the queue for {label!r}; --force drops them"
            ) from error
    if settings.json:
        show_json({"queue": name, "label": label, "lost": lost})
    elif lost:
        show_note(f"{counted(lost, 'request')} waited in it and will never be done")
    return Exit.DONE
