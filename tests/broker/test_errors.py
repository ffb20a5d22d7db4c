"""What the broker answers when it refuses."""

from __future__ import annotations

import pytest

from amphora.broker.model.errors import Refusal
from amphora.wire.codes import ReplyCode


def test_a_refusal_says_the_name_of_its_code_and_what_is_wrong() -> None:
    refusal = Refusal(ReplyCode.NOT_FOUND, "no queue 'x' in vhost '/'")

    assert refusal.code == 404
    assert refusal.text == str(refusal) == "NOT_FOUND - no queue 'x' in vhost '/'"


def test_a_long_text_is_cut_to_what_a_short_string_can_hold() -> None:
    refusal = Refusal(ReplyCode.NOT_FOUND, "x" * 300)

    assert len(refusal.text) == 255
    assert refusal.text.endswith("xxx...")


def test_a_long_text_is_never_cut_within_a_character() -> None:
    refusal = Refusal(ReplyCode.NOT_FOUND, "é" * 200)

    assert refusal.text.endswith("é...")
    assert 253 <= len(refusal.text.encode()) <= 255


@pytest.mark.parametrize(
    ("reply", "closes_connection"),
    [
        (ReplyCode.ACCESS_REFUSED, False),
        (ReplyCode.NOT_FOUND, False),
        (ReplyCode.RESOURCE_LOCKED, False),
        (ReplyCode.PRECONDITION_FAILED, False),
        (ReplyCode.CONNECTION_FORCED, True),
        (ReplyCode.COMMAND_INVALID, True),
        (ReplyCode.NOT_ALLOWED, True),
        (ReplyCode.NOT_IMPLEMENTED, True),
        (ReplyCode.INTERNAL_ERROR, True),
    ],
)
def test_grave_refusals_end_the_connection_and_others_only_the_channel(
    reply: ReplyCode, closes_connection: bool
) -> None:
    assert Refusal(reply, "").closes_connection is closes_connection
