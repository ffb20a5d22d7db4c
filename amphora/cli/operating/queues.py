"""`amphora queue`: the request queues of a namespace."""

from __future__ import annotations

import click

from amphora.cli.advice import complete_namespace, missing_namespace
from amphora.cli.failures import Exit, Failure, confirm, settings_errors
from amphora.cli.lookup import (
    TIMEOUT,
    count_workers,
    find_queue,
    find_queues,
    time_left,
)
from amphora.cli.operating.one_worker import ask_one
from amphora.cli.output import counted, show_json, show_note, show_table
from amphora.cli.settings import (
    Group,
    Number,
    Settings,
    examples,
    json_option,
    pass_settings,
    url_and_debug,
)
from amphora.errors import ChannelClosed, ConnectionLost
from amphora.rpc.client.client import AmqpRpcClient
from amphora.rpc.contract import naming
from amphora.transport.session import Session
from amphora.wire.codes import ReplyCode

# Part of the broker's refusal to delete a quorum queue on the condition that it is empty.
NOT_FOR_QUORUM = "not supported by quorum queues"


@click.group(cls=Group)
@url_and_debug
def queue() -> None:
    """List, create, remove and empty request queues."""


@queue.command(
    "list",
    epilog=examples("amphora queue list math", "amphora queue list messages Alice Bob --json"),
)
@click.argument("namespace", shell_complete=complete_namespace)
@click.argument("labels", nargs=-1, metavar="[LABEL]...")
@json_option
@url_and_debug
@pass_settings
def list_queues(settings: Settings, namespace: str, labels: tuple[str, ...]) -> int:
    """Show a namespace's queues with their waiting requests and consumers.

    AMQP can look up only queues with known names: the queue that all workers share, and those of
    the LABELs given.  To see all queues use rabbitmqctl list_queues.  Requests in progress do not
    count as waiting.

    --json prints for each {"queue", "label", "exists", "messages", "consumers"}; the label of the
    shared queue is null.  A LABEL without a queue makes the exit code 6.
    """
    with settings_errors(), settings.session(TIMEOUT) as session:
        names: dict[str | None, str] = {
            None: naming.request_queue(naming.check_namespace(namespace))
        }
        names |= {label: naming.labelled_queue(namespace, label) for label in labels}
        states = find_queues(session, names.values())
        found = {label: states[name] for label, name in names.items()}
        workers = count_workers(session, namespace)
        if not labels and found[None] is None and not workers:
            raise missing_namespace(session, namespace)
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
    away = [names[label] for label, there in found.items() if there is not None and there.away]
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
        for name in away:
            show_note(f"{name} is on a node that is away: what is in it is not known")
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
@click.argument("namespace", shell_complete=complete_namespace)
@click.argument("label")
@click.option("--routing-key", metavar="KEY", help="The key of its requests.  [default: LABEL]")
@click.option(
    "--expires",
    type=Number(),
    metavar="SECONDS",
    help="Delete it, with the requests in it, after so long without a receiver.  [default: never]",
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

    Servers take them with receive_from_queue(LABEL).  If the queue exists with the same settings,
    nothing changes.  --json prints {"queue": ..., "label": ...}.
    """
    with settings_errors(), settings.session(TIMEOUT) as session:
        client = AmqpRpcClient(
            naming.check_namespace(namespace), session=session, timeout=time_left()
        )
        with client:
            client.create_new_request_queue(label, routing_key, x_expires=expires)
    if settings.json:
        show_json({"queue": naming.labelled_queue(namespace, label), "label": label})
    return Exit.DONE


@queue.command(epilog=examples("amphora queue remove messages Alice"))
@click.argument("namespace", shell_complete=complete_namespace)
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
    with settings_errors(), settings.session(TIMEOUT) as session:
        name = naming.labelled_queue(naming.check_namespace(namespace), label)
        if find_queue(session, name) is None:
            raise Failure(Exit.NOBODY, f"{namespace} has no queue for {label!r}")
        lost = delete(session, name, force)
        if lost is None:
            raise Failure(
                Exit.REFUSED, f"requests wait in the queue for {label!r}; --force drops them"
            )
    if settings.json:
        show_json({"queue": name, "label": label, "lost": lost})
    elif lost:
        show_note(f"{counted(lost, 'request')} waited in it and will never be done")
    return Exit.DONE


@queue.command(
    epilog=examples("amphora queue purge messages", "amphora queue purge messages Alice")
)
@click.argument("namespace", shell_complete=complete_namespace)
@click.argument("label", required=False)
@click.option("-y", "--yes", is_flag=True, help="Do not ask before.")
@json_option
@url_and_debug
@pass_settings
def purge(settings: Settings, namespace: str, label: str | None, yes: bool) -> int:
    """Drop the requests that wait in the queue of all workers, or in that of LABEL.

    They are lost: their callers get no answer.  A worker does it, of a server made with
    management={"purge"}.  --json prints {"queue", "purged"}: how many there were.
    """
    if not yes and settings.may_ask:
        which = namespace if label is None else f"{label} of {namespace}"
        confirm(f"Drop all requests that wait for {which}?", "nothing was dropped")
    done = ask_one(settings, naming.check_namespace(namespace), TIMEOUT, "purge", label)
    if settings.json:
        show_json(done)
    else:
        click.echo(f"{counted(done['purged'], 'request')} dropped from {done['queue']}")
    return Exit.DONE


def delete(session: Session, name: str, force: bool) -> int | None:
    """Delete a queue; return how many requests were in it.  Switches greenlets.

    Without `force` a queue that is not empty stays, and None is returned.  A quorum queue takes two
    steps, because RabbitMQ closes the connection of a client that tries it in one.
    """
    if not force:
        channel = session.channel(consume=True, timeout=time_left())
        try:
            return channel.queue_delete(name, if_empty=True)
        except ChannelClosed as error:
            if error.code != ReplyCode.PRECONDITION_FAILED:
                raise
            return None
        except ConnectionLost as error:
            if NOT_FOR_QUORUM not in str(error):
                raise
        found = find_queue(session, name)
        if found is not None and found.messages:
            return None
    return session.operate(lambda channel: channel.queue_delete(name), time_left())
