"""Exchanges: declaring, deleting, binding, and where a message goes."""

from __future__ import annotations

from typing import Any

import pytest

from amphora.broker.model.limits import Limits
from tests.broker.world import Client, World, refused


@pytest.fixture
def topology(client: Client) -> Any:
    """What a client does with exchanges."""
    return client.world.vhost.topology


# Declaring and deleting


@pytest.mark.parametrize(
    "name", ["amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match"]
)
def test_the_exchanges_of_the_standard_are_there(topology: Any, name: str) -> None:
    topology.exchanges.declare(name, passive=True)


def test_a_standard_exchange_can_be_declared_as_it_is(topology: Any) -> None:
    topology.exchanges.declare("amq.topic", "topic", durable=True)


def test_declaring_an_exchange_twice_changes_nothing(topology: Any) -> None:
    topology.exchanges.declare("e", "fanout")
    topology.exchanges.declare("e", "fanout")


@pytest.mark.parametrize(
    ("different", "text"),
    [
        ({"kind": "fanout"}, "'type' for {}: received 'fanout' but current is 'direct'"),
        ({"durable": True}, "'durable' for {}: received 'true' but current is 'false'"),
        ({"auto_delete": True}, "'auto_delete' for {}: received 'true' but current is 'false'"),
        ({"internal": True}, "'internal' for {}: received 'true' but current is 'false'"),
        (
            {"arguments": {"alternate-exchange": "foo"}},
            (
                "'alternate-exchange' for {}: received the value 'foo' of type 'longstr'"
                " but current is none"
            ),
        ),
    ],
)
def test_declaring_an_exchange_as_another_is_refused(
    topology: Any, different: dict[str, Any], text: str
) -> None:
    topology.exchanges.declare("e")

    where = text.format("exchange 'e' in vhost '/'")
    with refused(f"PRECONDITION_FAILED - inequivalent arg {where}"):
        topology.exchanges.declare("e", **different)


def test_a_passive_declaration_of_a_missing_exchange_is_refused(topology: Any) -> None:
    with refused("NOT_FOUND - no exchange 'e' in vhost '/'"):
        topology.exchanges.declare("e", passive=True)


def test_a_passive_declaration_does_not_look_at_the_type(topology: Any) -> None:
    topology.exchanges.declare("amq.direct", "fanout", passive=True)


def test_an_unknown_type_is_refused(topology: Any) -> None:
    with refused("COMMAND_INVALID - unknown exchange type 'zork'"):
        topology.exchanges.declare("e", "zork")


def test_a_reserved_name_is_refused(topology: Any) -> None:
    with refused("ACCESS_REFUSED - exchange name 'amq.e' contains reserved prefix 'amq.*'"):
        topology.exchanges.declare("amq.e")


def test_line_ends_in_a_name_are_left_out(topology: Any) -> None:
    topology.exchanges.declare("a\r\nb")

    topology.exchanges.declare("ab", passive=True)


def test_an_alternate_exchange_must_be_a_name(topology: Any) -> None:
    with refused(
        "PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange'"
        " in exchange 'e' in vhost '/'"
    ):
        topology.exchanges.declare("e", arguments={"alternate-exchange": 5})


def test_a_deleted_exchange_is_gone_and_deleting_it_again_is_fine(topology: Any) -> None:
    topology.exchanges.declare("e")

    topology.exchanges.delete("e")
    topology.exchanges.delete("e")

    with refused("NOT_FOUND - no exchange 'e' in vhost '/'"):
        topology.exchanges.declare("e", passive=True)


def test_a_standard_exchange_cannot_be_deleted(topology: Any) -> None:
    with refused(
        "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed"
    ):
        topology.exchanges.delete("amq.direct")


def test_an_exchange_in_use_is_only_deleted_if_nobody_minds(topology: Any, client: Client) -> None:
    topology.exchanges.declare("e")
    client.bind("q", "e", "k")

    with refused("PRECONDITION_FAILED - exchange 'e' in vhost '/' in use"):
        topology.exchanges.delete("e", if_unused=True)
    topology.exchanges.delete("e")

    assert not client.world.queue("q").inbound


def test_the_default_exchange_cannot_be_touched(topology: Any, client: Client) -> None:
    client.queue_declare("q")
    topology.exchanges.declare("e")
    for attempt in (
        lambda: topology.exchanges.declare("", passive=True),
        lambda: topology.exchanges.delete(""),
        lambda: client.queue_bind("q", "", "k"),
        lambda: client.queue_unbind("q", "", "q"),
        lambda: topology.bind_exchange("e", "", "k"),
        lambda: topology.bind_exchange("", "e", "k"),
        lambda: topology.unbind_exchange("", "e", "k"),
    ):
        with refused("ACCESS_REFUSED - operation not permitted on the default exchange"):
            attempt()


def test_too_many_exchanges_are_refused() -> None:
    world = World(Limits(exchanges=8))
    world.vhost.topology.exchanges.declare("e1")

    with refused(
        "PRECONDITION_FAILED - cannot declare exchange 'e2': exchange limit in vhost '/' (8)"
        " is reached"
    ):
        world.vhost.topology.exchanges.declare("e2")


def test_too_many_bindings_are_refused_and_room_is_made_by_unbinding() -> None:
    world = World(Limits(bindings=1))
    client = world.client()
    client.bind("q", "amq.direct", "a")

    with refused(
        "PRECONDITION_FAILED - cannot bind queue 'q' in vhost '/': binding limit in vhost '/'"
        " (1) is reached"
    ):
        client.queue_bind("q", "amq.direct", "b")
    client.queue_unbind("q", "amq.direct", "a")
    client.queue_bind("q", "amq.direct", "b")


# Binding


def test_binding_names_what_is_missing(client: Client) -> None:
    client.queue_declare("q")

    with refused("NOT_FOUND - no exchange 'e' in vhost '/'"):
        client.queue_bind("q", "e", "k")
    with refused("NOT_FOUND - no queue 'x' in vhost '/'"):
        client.queue_bind("x", "amq.direct", "k")
    with refused("NOT_FOUND - no exchange 'e' in vhost '/'"):
        client.queue_bind("x", "e", "k")


def test_binding_twice_is_binding_once(client: Client) -> None:
    client.bind("q", "amq.direct", "k")
    client.queue_bind("q", "amq.direct", "k")

    client.publish("k", "once", exchange="amq.direct")
    client.queue_unbind("q", "amq.direct", "k")
    client.publish("k", "never", exchange="amq.direct")

    assert client.get_all("q") == ["once"]


def test_bindings_with_other_arguments_are_others_but_bring_one_copy(client: Client) -> None:
    client.bind("q", "amq.direct", "k")
    client.bind("q", "amq.direct", "k", a=1)

    client.publish("k", "one", exchange="amq.direct")
    client.queue_unbind("q", "amq.direct", "k")
    client.publish("k", "two", exchange="amq.direct")

    assert client.get_all("q") == ["one", "two"]


def test_removing_a_binding_that_is_not_there_is_fine(client: Client) -> None:
    client.queue_declare("q")

    client.queue_unbind("q", "amq.direct", "k")
    client.queue_unbind("q", "nowhere", "k")
    client.queue_unbind("nobody", "amq.direct", "k")
    client.world.vhost.topology.unbind_exchange("nobody", "nowhere", "k")


def test_a_deleted_queue_leaves_no_binding(client: Client) -> None:
    client.bind("q", "amq.direct", "k")

    client.queue_delete("q")
    client.queue_declare("q")
    client.publish("k", "lost", exchange="amq.direct", mandatory=True)

    assert client.returned() == ["lost"]


def test_an_auto_delete_exchange_goes_with_its_last_binding(topology: Any, client: Client) -> None:
    topology.exchanges.declare("e", auto_delete=True)
    client.bind("q", "e", "a")
    client.bind("q", "e", "b")

    client.queue_unbind("q", "e", "a")
    topology.exchanges.declare("e", passive=True)
    client.queue_unbind("q", "e", "b")

    with refused("NOT_FOUND - no exchange 'e' in vhost '/'"):
        topology.exchanges.declare("e", passive=True)


def test_auto_delete_goes_on_along_a_chain_of_exchanges(topology: Any, client: Client) -> None:
    topology.exchanges.declare("first", "fanout", auto_delete=True)
    topology.exchanges.declare("second", "fanout", auto_delete=True)
    topology.bind_exchange("second", "first", "")
    client.bind("q", "second")

    client.queue_delete("q")

    assert "first" not in topology.exchanges.by_name
    assert "second" not in topology.exchanges.by_name


def test_an_auto_delete_exchange_stays_when_a_binding_to_it_goes(topology: Any) -> None:
    topology.exchanges.declare("e", "fanout", auto_delete=True)
    topology.bind_exchange("e", "amq.fanout", "")

    topology.unbind_exchange("e", "amq.fanout", "")

    topology.exchanges.declare("e", passive=True)


# Where a message goes


def test_the_default_exchange_leads_to_the_queue_of_that_name(client: Client) -> None:
    client.queue_declare("q")

    client.publish("q", "hello")

    assert client.get("q") == "hello"


def test_a_direct_exchange_compares_the_whole_key(client: Client) -> None:
    client.bind("q", "amq.direct", "k")

    client.publish("k", "yes", exchange="amq.direct")
    client.publish("kk", "no", exchange="amq.direct")

    assert client.get_all("q") == ["yes"]


def test_a_fanout_exchange_brings_one_copy_to_each_queue(client: Client) -> None:
    client.bind("one", "amq.fanout", "a")
    client.bind("one", "amq.fanout", "b")
    client.bind("two", "amq.fanout")

    client.publish("any", "all", exchange="amq.fanout")

    assert client.get_all("one") == ["all"]
    assert client.get_all("two") == ["all"]


@pytest.mark.parametrize(
    ("pattern", "key", "fits"),
    [
        ("#", "", True),
        ("#", "a", True),
        ("#", "a.b", True),
        ("*", "", False),
        ("*", "a", True),
        ("*", "a.b", False),
        ("*", ".", False),
        ("*.*", ".", True),
        ("", "", True),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("#.a", "a", True),
        ("#.a", "a.b", False),
        ("a.*.#", "a", False),
        ("a..b", "a..b", True),
        ("a.*.b", "a..b", True),
        ("#.#", "a.b", True),
        ("*.#.*", "a", False),
        ("*.#.*", "a.b", True),
        ("a#", "a#", True),
        ("a#", "ab", False),
        ("#.b.#", "a.b.c", True),
        ("#.b.#", "a.c", False),
    ],
)
def test_a_topic_pattern_fits_word_by_word(
    client: Client, pattern: str, key: str, fits: bool
) -> None:
    client.bind("q", "amq.topic", pattern)

    client.publish(key, "x", exchange="amq.topic")

    assert client.count("q") == fits


def test_removing_one_topic_pattern_leaves_the_others(client: Client) -> None:
    for pattern in ("a.b", "a.b.c", "a.*"):
        client.bind(pattern, "amq.topic", pattern)

    client.queue_unbind("a.b", "amq.topic", "a.b")
    client.publish("a.b", "x", exchange="amq.topic")
    client.publish("a.b.c", "y", exchange="amq.topic")

    assert (client.count("a.b"), client.count("a.*"), client.count("a.b.c")) == (0, 1, 1)


def test_a_hostile_topic_pattern_does_not_take_for_ever(client: Client) -> None:
    client.bind("q", "amq.topic", "#." * 30 + "end")

    client.publish("a." * 100 + "a", "x", exchange="amq.topic")
    client.publish("a." * 100 + "end", "y", exchange="amq.topic")

    assert client.get_all("q") == ["y"]


@pytest.mark.parametrize(
    ("arguments", "headers", "fits"),
    [
        ({}, {}, True),
        ({}, {"a": 1}, True),
        ({"x-match": "any"}, {"a": 1}, False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": True}, {"a": True}, True),
        ({"a": "1"}, {"a": 1}, False),
        ({"a": None}, {"a": 5}, True),
        ({"a": None}, {}, False),
        ({"a": {"b": 1}}, {"a": {"b": 1}}, True),
        ({"x-a": 1}, {}, True),
        ({"x-match": "any", "x-a": 1}, {"x-a": 1}, False),
        ({"x-match": "all-with-x", "x-a": 1}, {}, False),
        ({"x-match": "all-with-x", "x-a": 1}, {"x-a": 1}, True),
        ({"x-match": "any-with-x", "x-a": 1}, {"x-a": 1}, True),
        ({"x-match": "any", "a": 1, "b": 2}, {"b": 2}, True),
        ({"x-match": "any", "a": 1}, None, False),
        ({"x-match": "all", "a": 1, "b": 2}, {"b": 2}, False),
        ({"x-match": "all", "a": 1, "b": 2}, {"b": 2, "a": 1, "c": 3}, True),
    ],
)
def test_a_headers_exchange_compares_headers(
    client: Client, arguments: dict[str, Any], headers: dict[str, Any] | None, fits: bool
) -> None:
    client.queue_declare("q")
    client.queue_bind("q", "amq.headers", "", arguments)

    client.publish("", "x", exchange="amq.headers", headers=headers)

    assert client.count("q") == fits


def test_a_binding_of_a_headers_exchange_must_say_a_known_kind_of_match(client: Client) -> None:
    client.queue_declare("q")

    with refused(
        'PRECONDITION_FAILED - Invalid x-match field value <<"foo">>; expected all, any,'
        " all-with-x, or any-with-x"
    ):
        client.queue_bind("q", "amq.headers", "", {"x-match": "foo"})
    with refused(
        "PRECONDITION_FAILED - Invalid x-match field type signedint (value 5); expected longstr"
    ):
        client.queue_bind("q", "amq.headers", "", {"x-match": 5})


def test_a_headers_binding_can_be_removed(client: Client) -> None:
    client.queue_declare("q")
    client.queue_bind("q", "amq.headers", "", {"a": 1})

    client.queue_unbind("q", "amq.headers", "", {"a": 1})
    client.publish("", "x", exchange="amq.headers", headers={"a": 1})

    assert client.count("q") == 0


def test_an_exchange_passes_on_to_an_exchange_bound_to_it(topology: Any, client: Client) -> None:
    topology.exchanges.declare("inner", "fanout", internal=True)
    topology.bind_exchange("inner", "amq.direct", "k")
    client.bind("q", "inner")

    client.publish("k", "through", exchange="amq.direct")
    topology.unbind_exchange("inner", "amq.direct", "k")
    client.publish("k", "no more", exchange="amq.direct")

    assert client.get_all("q") == ["through"]


def test_exchanges_bound_in_a_circle_bring_one_copy(topology: Any, client: Client) -> None:
    topology.exchanges.declare("one", "fanout")
    topology.exchanges.declare("two", "fanout")
    topology.bind_exchange("two", "one", "")
    topology.bind_exchange("one", "two", "")
    client.bind("q", "one")
    client.bind("q", "two")

    client.publish("", "round", exchange="one")

    assert client.get_all("q") == ["round"]


def test_binding_exchanges_names_what_is_missing(topology: Any) -> None:
    with refused("NOT_FOUND - no exchange 'a' in vhost '/'"):
        topology.bind_exchange("b", "a", "")
    with refused("NOT_FOUND - no exchange 'b' in vhost '/'"):
        topology.bind_exchange("b", "amq.direct", "")


def test_an_alternate_exchange_takes_what_has_no_binding(topology: Any, client: Client) -> None:
    topology.exchanges.declare("e", arguments={"alternate-exchange": "amq.fanout"})
    client.bind("bound", "e", "k")
    client.bind("rest", "amq.fanout")

    client.publish("k", "bound", exchange="e")
    client.publish("other", "rest", exchange="e", mandatory=True)

    assert client.get_all("bound") == ["bound"]
    assert client.get_all("rest") == ["rest"]
    assert client.returned() == []


def test_an_alternate_exchange_that_is_missing_takes_nothing(topology: Any, client: Client) -> None:
    topology.exchanges.declare("e", arguments={"alternate-exchange": "missing"})

    client.publish("k", "back", exchange="e", mandatory=True)

    assert client.returned() == ["back"]


def test_the_default_exchange_is_no_alternate(topology: Any, client: Client) -> None:
    topology.exchanges.declare("e", arguments={"alternate-exchange": ""})
    client.queue_declare("q")

    client.publish("q", "back", exchange="e", mandatory=True)

    assert client.returned() == ["back"]


def test_carbon_copies_go_to_more_keys_and_blind_ones_are_not_told(client: Client) -> None:
    for name in ("to", "copy", "blind"):
        client.queue_declare(name)

    client.publish("to", "x", headers={"CC": ["copy", 7], "BCC": ["blind", "to"], "other": 1})

    for name in ("to", "copy", "blind"):
        delivery, left = client.basic_get(name)
        assert left == 0
        assert delivery.message.routing_key == "to"
        assert delivery.message.properties.headers == {"CC": ["copy", 7], "other": 1}


def test_carbon_copies_must_be_a_list(client: Client) -> None:
    with refused(
        'PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,"CC",longstr}'
    ):
        client.publish("q", "x", headers={"CC": "copy"})
