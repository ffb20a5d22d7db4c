"""Who takes the deliveries of a channel, while consumers begin and end."""

from __future__ import annotations

from amphora.transport.channels.recipients import Recipient, Recipients


def recipients(*, begun: bool, no_ack: bool = False) -> Recipients:
    found = Recipients()
    found.add("tag", Recipient(print, print, ended, no_ack=no_ack))
    if begun:
        assert not found.begun("tag")
    return found


def ended(tag: str) -> None:
    raise AssertionError(f"{tag} was not ended by the broker")


def test_a_consumer_may_get_deliveries_before_the_broker_says_that_it_has_begun() -> None:
    found = recipients(begun=False)
    assert found.is_beginning("tag")
    assert found.by_tag["tag"].callback is print


def test_one_that_is_forgotten_takes_no_more() -> None:
    found = recipients(begun=True)
    assert found
    assert found.forget("tag") is ended
    assert not found
    assert not found.by_tag


def test_one_that_is_forgotten_before_it_has_begun_is_to_be_cancelled_then() -> None:
    found = recipients(begun=False)
    found.forget("tag")
    assert not found
    assert found.is_beginning("tag")
    assert found.begun("tag")
    assert not found.by_tag


def test_one_that_ends_takes_what_is_on_its_way_and_is_not_told_of_its_end() -> None:
    found = recipients(begun=False)
    found.end("tag")
    assert found.by_tag["tag"].callback is print
    assert found.begun("tag")
    assert found.forget("tag") is None


def test_it_is_remembered_that_the_deliveries_of_one_that_is_gone_want_no_ack() -> None:
    found = recipients(begun=True, no_ack=True)
    found.forget("tag")
    assert not found
    assert found.by_tag["tag"].no_ack


def test_what_is_unknown_is_neither_beginning_nor_anything_to_forget() -> None:
    found = Recipients()
    found.end("tag")
    assert found.forget("tag") is None
    assert not found.is_beginning("tag")
    assert found.begun("tag")
