"""arpc's command: send one message and print what comes back.

arpc_msg_sender example '{"c": "add", "x": 10, "y": 20}'
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from amphora.arpc import mq
from amphora.errors import AmphoraError, NoResult, RemoteException
from amphora.transport.words import utf8_word

logger = logging.getLogger("msg_sender")

USAGE = """usage: arpc_msg_sender ROUTING_KEY JSON

Send a JSON document to the service of that name, or to the management of its
workers (mgt.SERVICE, mgt.WORKER_ID), and print what they answer.

    arpc_msg_sender example '{"c": "add", "x": 10, "y": 20}'
    arpc_msg_sender mgt.example '{"c": "ping"}'

The broker is the one of AMQP_URL, else one on this machine.
Exit status: 0 answered, 1 an error or no answer, 2 wrong arguments."""

TIMEOUT = 10.0


def send(
    amqp: mq.AMQPOperations, key: str, document: mq.Document, timeout: float = TIMEOUT
) -> Iterator[Any]:
    """Send a document and yield the answers as they come.  Switches greenlets.

    Raises:
        RemoteException: a method raised.
        NoResult: no worker answered within `timeout` seconds.
        ValueError: the document has no method's name, or the key is invalid.
    """
    with closing(mq.ServiceCaller(amqp, key, want_replies=True)) as caller:
        answered = False
        for answer in caller.send_to_all(document, timeout):
            answered = True
            yield answer
        if not answered:
            raise NoResult(f"no worker answered {key} within {timeout:g} s")


def send_and_log(amqp: mq.AMQPOperations, key: str, document: mq.Document) -> int:
    """Send a document, log the answers as arpc did, and return the exit status.

    Switches greenlets.
    """
    logger.info("Message sent, waiting for response")
    try:
        for answer in send(amqp, key, document):
            logger.info("Result: <%s>", answer)
    except RemoteException as error:
        logger.error("Error: <%s>%s", error, f"\n{error.traceback}" if error.traceback else "")
        return 1
    except (AmphoraError, ValueError) as error:
        logger.error("%s", error)
        return 1
    return 0


def log_to_stderr() -> None:
    """Write log lines in arpc's form."""
    logging.basicConfig(
        level=logging.WARNING, format="%(name)s %(asctime)s %(levelname)s %(message)s"
    )
    logger.setLevel(logging.INFO)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) == 1 and arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if len(arguments) != 2:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        key, text = map(utf8_word, arguments)
    except ValueError:
        print("arpc_msg_sender: an argument is not UTF-8", file=sys.stderr)
        return 2
    try:
        document = json.loads(text)
    except ValueError as error:
        print(f"arpc_msg_sender: the second argument is not JSON: {error}", file=sys.stderr)
        return 2
    log_to_stderr()
    try:
        amqp = mq.AMQPOperations(useack=True, persistent=True)
    except ValueError as error:
        print(f"arpc_msg_sender: {error}", file=sys.stderr)
        return 2
    try:
        return send_and_log(amqp, key, document)
    except KeyboardInterrupt:
        return 130
    finally:
        amqp.close()


if __name__ == "__main__":
    sys.exit(main())
