"""What is made of the words with which a broker closes a channel."""

from __future__ import annotations

import pytest

from amphora.errors import AccessRefused, ChannelClosed, Inequivalent
from amphora.transport.channels.refusals import refusal
from amphora.wire.codec import methods


def closed(text: str, class_id: int, method_id: int, code: int = 403) -> ChannelClosed:
    return refusal(methods.Channel.Close(code, text, class_id, method_id))


REFUSED = "ACCESS_REFUSED - {} in vhost '/' refused for user 'bob'"


@pytest.mark.parametrize(
    ("access", "method", "permission", "needs"),
    [
        ("access to exchange 'x'", (40, 10), "configure", "to configure exchange 'x'"),
        ("access to queue 'q'", (50, 10), "configure", "to configure queue 'q'"),
        ("access to queue 'q'", (50, 20), "write", "to write queue 'q'"),
        ("access to exchange 'x'", (50, 20), "read", "to read exchange 'x'"),
        ("access to exchange 'x'", (60, 40), "write", "to write exchange 'x'"),
        ("access to queue 'q'", (60, 20), "read", "to read queue 'q'"),
        ("access to queue 'q'", (60, 70), "read", "to read queue 'q'"),
        ("access to queue 'q'", (50, 30), "read", "to read queue 'q'"),
        ("access to topic 'k' in exchange 'x'", (60, 40), "write", "to write topic 'k'"),
        # As RabbitMQ 4 says it.
        ("read access to exchange 'x'", (50, 20), "read", "to read exchange 'x'"),
        ("write access to queue 'q'", (0, 0), "write", "to write queue 'q'"),
        # The broker of a stranger, which does not say what it was.
        ("access to queue 'q'", (0, 0), "", "a permission for queue 'q'"),
    ],
)
def test_a_missing_permission_is_named(
    access: str, method: tuple[int, int], permission: str, needs: str
) -> None:
    error = closed(REFUSED.format(access), *method)

    assert isinstance(error, AccessRefused)
    assert (error.code, error.permission) == (403, permission)
    assert f"; user 'bob' needs {'the permission ' if permission else ''}{needs}" in str(error)
    assert "in vhost '/' (rabbitmqctl set_" in str(error)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (
            "delivery acknowledgement on channel 3 timed out. Timeout value used: 1800000 ms.",
            "consumer_timeout: raise that",
        ),
        (
            "cannot declare queue 'q': queue limit in vhost '/' (10) is reached",
            "rabbitmqctl set_vhost_limits",
        ),
    ],
)
def test_what_to_do_about_a_limit_of_the_broker_is_told(text: str, advice: str) -> None:
    error = closed(text, 0, 0, 406)

    assert advice in error.advice
    assert str(error) == f"the broker closed the channel: 406 {text}; {error.advice}"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"),
        (403, "ACCESS_REFUSED - exchange name 'amq.foo' contains reserved prefix 'amq.*'"),
        (403, "ACCESS_REFUSED"),
        (404, "NOT_FOUND - no access to queue 'q'"),
    ],
)
def test_what_is_no_matter_of_permissions_is_told_as_it_was(code: int, text: str) -> None:
    error = closed(text, 60, 20, code)

    assert type(error) is ChannelClosed
    assert str(error) == f"the broker closed the channel: {code} {text}"


def test_a_text_that_was_cut_short_is_still_a_missing_permission() -> None:
    error = closed(REFUSED.format(f"access to queue '{'q' * 60}'")[:90], 50, 10)

    assert isinstance(error, AccessRefused)
    assert "its user needs the permission to configure queue 'qqq" in str(error)


def test_what_was_tried_is_told_in_front_of_it() -> None:
    error = closed(REFUSED.format("access to queue 'q'"), 50, 10)
    again = error.during("<Topology queue q> cannot be set up")

    assert str(again) == f"<Topology queue q> cannot be set up: {error}"
    assert (type(again), again.code) == (AccessRefused, 403)
    assert not str(error).startswith("<")


DIFFERS = "PRECONDITION_FAILED - inequivalent arg '{}' for queue 'q' in vhost '/': received {}"
GIVE_QUORUM = "queue 'q' is a quorum queue: give queue_type='quorum', or delete it when it is empty"
GIVE_CLASSIC = "queue 'q' is a classic queue: give queue_type='classic', or delete it when"


@pytest.mark.parametrize(
    ("setting", "values", "advice"),
    [
        ("x-queue-type", "'classic' but current is 'quorum'", GIVE_QUORUM),
        ("x-queue-type", "none but current is the value 'quorum' of type 'longstr'", GIVE_QUORUM),
        ("x-queue-type", "'quorum' but current is 'classic'", GIVE_CLASSIC),
        # Made without a type, as amphora 0.1 made them; as RabbitMQ 3 says it.
        (
            "x-queue-type",
            "the value 'quorum' of type 'longstr' but current is none",
            GIVE_CLASSIC,
        ),
        ("x-queue-type", "'quorum' but current is 'stream'", "is of another type: delete it when"),
        # Cut short, as the text may be.
        ("x-queue-type", "'quorum' but current is 'clas", "is of another type: delete it when"),
        ("x-expires", "'5' but current is '6'", "was made with another x-expires: delete it when"),
        ("x-delivery-limit", "'9' but current is '5'", "drops what it has delivered more often"),
        ("durable", "'false' but current is 'true'", "was made with another durable: delete it"),
    ],
)
def test_what_differs_from_the_queue_that_is_there_comes_with_what_to_do(
    setting: str, values: str, advice: str
) -> None:
    text = DIFFERS.format(setting, values)
    error = closed(text, 50, 10, 406)

    assert isinstance(error, Inequivalent)
    assert (error.code, error.setting) == (406, setting)
    assert str(error).startswith(f"the broker closed the channel: 406 {text}")
    assert f"; {error.advice}" in str(error)
    assert advice in error.advice
    assert error.advice.endswith("(rabbitmqctl delete_queue)")


@pytest.mark.parametrize(
    ("differs", "advice"),
    [
        (
            "'type' for exchange 'x' in vhost '/': received 'direct' but current is 'fanout'",
            (
                "exchange 'x' belongs to fanout clients and servers: ordinary ones need another"
                " namespace; delete it if none of the former is left"
            ),
        ),
        (
            "'type' for exchange 'x' in vhost '/': received 'fanout' but current is 'direct'",
            (
                "exchange 'x' belongs to ordinary clients and servers: fanout ones need another"
                " namespace; delete it if none of the former is left"
            ),
        ),
        (
            "'type' for exchange 'x' in vhost '/': received 'direct' but current is 'topic'",
            "exchange 'x' was made with another type: delete it",
        ),
        (
            "'durable' for exchange 'x' in vhost '/': received 'true' but current is 'false'",
            "exchange 'x' was made with another durable: delete it",
        ),
    ],
)
def test_an_exchange_of_another_kind_is_told_apart(differs: str, advice: str) -> None:
    error = closed(f"PRECONDITION_FAILED - inequivalent arg {differs}", 40, 10, 406)

    assert isinstance(error, Inequivalent)
    assert error.advice == advice


@pytest.mark.parametrize(
    "text",
    [
        "PRECONDITION_FAILED - unknown delivery tag 7",
        "PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'q' in vhost '/'",
    ],
)
def test_other_conditions_that_are_not_met_are_told_as_they_were(text: str) -> None:
    error = closed(text, 50, 10, 406)

    assert type(error) is ChannelClosed
    assert str(error) == f"the broker closed the channel: 406 {text}"
