"""What is said of a request in progress."""

from __future__ import annotations

from amphora.cli.operating.activity import notes
from amphora.cli.output import caller


def test_what_is_unusual_about_a_request_stands_behind_its_function() -> None:
    usual = {"stream": False, "redelivered": False, "begun": True}
    assert notes(usual) == ""
    assert notes({"stream": True, "redelivered": True, "begun": False}) == (
        " (stream, redelivered, not begun)"
    )


def test_a_caller_is_its_login_and_the_beginning_of_its_id_as_far_as_known() -> None:
    assert caller({"user": None, "client": ""}) == "-"
    assert caller({"user": "billing", "client": "0123456789abcdef"}) == "billing 0123456789ab"
