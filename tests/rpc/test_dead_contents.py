"""What is kept and told of a request that was given up."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from amphora.rpc.contract import dead
from amphora.wire.properties import Properties, decode_properties, encode_properties

FRAME_MAX = 131_072


def test_what_is_kept_of_a_request_can_be_sent_again() -> None:
    sent = Properties(
        message_id="1",
        reply_to="client",
        expiration="5000",
        user_id="guest",
        headers={"mine": 1, "x-amphora-sent": 2, "x-amphora-takes": "batch"},
    )
    kept = dead.buried(sent, 3, "exchange", "key", FRAME_MAX)
    assert (kept.expiration, kept.user_id, kept.reply_to) == (None, None, "client")
    again = dead.raised(kept)
    assert (again.message_id, again.reply_to, again.headers) == ("1", None, {"mine": 1})
    assert sent.headers is not None
    assert "x-amphora-reason" not in sent.headers
    assert dead.raised(Properties(headers={dead.REASON: "poison"})).headers is None


def test_what_an_older_amphora_has_kept_or_nobody_can_read_is_told_as_far_as_it_goes() -> None:
    kept = Properties(correlation_id="1", headers={dead.REASON: "poison", dead.ATTEMPTS: 3})
    found = dead.contents(kept, b'{"func": "f", "args": [1]}')
    assert (found["id"], found["function"], found["attempts"]) == ("1", "f", 3)
    assert (found["died"], found["user"], found["routing_key"]) == (None, None, None)
    for strange in (kept, Properties(content_type="image/png")):
        found = dead.contents(strange, b"\xff{\x1b[2J")
        assert found["function"] == ""
        assert found["text"] == "\\xff{\x1b[2J"
        assert "args" not in found


@pytest.mark.parametrize(
    "strange",
    [
        {"number": math.nan},
        {"within": [{"number": -math.inf}]},
        {"long": "x" * (FRAME_MAX - 100)},
        {f"header {number}": None for number in range(999)},
    ],
    ids=["no number", "no number within", "long", "many"],
)
def test_what_came_and_cannot_be_sent_again_is_left_out_of_what_is_kept(
    strange: dict[str, Any],
) -> None:
    came = Properties(message_id="1", headers={"mine": 1, **strange, "x-amphora-key": "k"})
    sent = encode_properties(dead.buried(came, 3, "e" * 255, "k" * 255, FRAME_MAX))
    assert len(sent) <= FRAME_MAX - 20
    kept = decode_properties(sent)
    found = dead.contents(kept, b'{"func": "f"}')
    assert (found["attempts"], found["routing_key"]) == (3, "k" * 255)
    assert found["headers"]["mine"] == 1
    assert not found["headers"].keys() >= strange.keys()


def test_texts_that_are_no_utf_8_are_told_in_escapes() -> None:
    strange = "\udcff\udcfe"
    headers = {"a": strange, "b": [{"c": strange}], dead.REASON: strange, dead.USER: strange}
    found = dead.contents(Properties(headers={**headers, dead.ROUTING_KEY: strange}), b"")
    told = r"\udcff\udcfe"
    assert found["headers"] == {"a": told, "b": [{"c": told}]}
    assert (found["reason"], found["user"], found["routing_key"]) == (told, told, told)
    msgspec.json.encode(found)
