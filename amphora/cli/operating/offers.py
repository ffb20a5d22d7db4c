"""The offers of a namespace's workers, for commands that read them."""

from __future__ import annotations

from dataclasses import replace

from amphora.cli.failures import Exit, Failure
from amphora.cli.operating.managing import gather
from amphora.cli.settings import Settings
from amphora.rpc.contract.types.compatibility import Offer, offer_of


def find_offers(
    settings: Settings, namespace: str, worker: str | None, timeout: float
) -> dict[str, Offer]:
    """Return the offer of each worker, by worker id.  Switches greenlets.

    Raises:
        Failure: there is no worker, or one has not answered as workers do.
    """
    # The answers are not what the command prints.
    replies = gather(replace(settings, json=False), namespace, worker, timeout, "describe")
    if replies.exit_code:
        raise Failure(replies.exit_code, f"not all workers of {namespace} say what they offer")
    return {reply.worker: offer_of(reply.value) for reply in replies.good}


def the_offer(settings: Settings, namespace: str, worker: str | None, timeout: float) -> Offer:
    """Return the offer of all workers of a namespace, if they agree.  Switches greenlets.

    Raises:
        Failure: they differ; or as for `find_offers`.
    """
    offers = list(find_offers(settings, namespace, worker, timeout).values())
    for offer in offers:
        # The order in which functions were added does not matter.
        offer.functions.sort(key=lambda function: function["name"])
    if any(offer != offers[0] for offer in offers[1:]):
        raise Failure(
            Exit.FAILED,
            f"the workers of {namespace} do not all offer the same (amphora describe {namespace}"
            " shows it); name one with --worker",
        )
    return offers[0]
