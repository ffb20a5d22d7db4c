"""The names of queues and keys, whatever somebody else wants them to be."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp import commands

from amphora.rpc.contract import naming
from tests.support.brokers import Broker
from tests.support.rpc import MakeClient, MakeServer

LONGEST_NAMESPACE = "n" * 100
# What AMQP libraries that check names allow in one.
PLAIN = re.compile(r"[A-Za-z0-9_.:@#,/+ -]+")

# Everything that UTF-8 can carry, and among it what is close to amphora's own ways of writing.
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
tricky = st.text(st.sampled_from("#02aF_é%/ \n\0☃"), min_size=1, max_size=300)
long = st.builds(lambda text, times: text * times, texts, st.integers(1, 300))
labels = st.one_of(texts, tricky, long)
namespaces = st.from_regex(r"[A-Za-z0-9_.:-]{1,100}", fullmatch=True).filter(
    lambda namespace: "_queue_" not in f"{namespace}_" and namespace != "mgt"
)

HOSTILE = [
    "a" * 300,
    "é" * 300,
    "line\nbreak",
    "tab\tand\0nul",
    "amq.direct",
    "amq.rabbitmq.reply-to",
    "..",
    "../../request",
    "request",
    "a_request",
    "%2F",
    "#2f",
    "##",
    "*",
    "#",
    " ",
    "☃",
    "\U0001f600",
    "‮",
    "'; DROP TABLE queues; --",
    "x" * 120,
    "x" * 121,
]


def other_names(namespace: str) -> set[str]:
    """Return the other queues of a namespace and of management."""
    worker = naming.new_worker_id(namespace)
    client = naming.new_id()
    return {
        naming.request_queue(namespace),
        naming.fanout_queue(namespace, worker),
        naming.response_queue(namespace, client),
        naming.roll_call_queue(namespace),
        naming.created_queue(namespace, worker),
        naming.attempts_queue(namespace, client),
        naming.dead_queue(namespace),
        naming.management_queue(worker),
    }


@given(labels, labels)
@example("a/", "a#2f")
@example("a#2f", "a/")
@example("x" * 120, "x" * 121)
def test_different_labels_have_different_queues(one: str, other: str) -> None:
    same = naming.labelled_queue("n", one) == naming.labelled_queue("n", other)
    assert same == (one == other)


@given(labels, labels)
def test_different_keys_stay_different(one: str, other: str) -> None:
    assert (naming.routing_key_for(one) == naming.routing_key_for(other)) == (one == other)


@given(st.text(st.sampled_from("ab#"), min_size=100, max_size=200))
def test_what_a_long_label_becomes_is_no_label_of_another_queue(label: str) -> None:
    queue = naming.labelled_queue("n", label)
    short = queue.removeprefix("rpc_n_queue_")
    if short != label:
        assert naming.labelled_queue("n", short) != queue
    key = naming.routing_key_for(label)
    if key != label:
        assert naming.routing_key_for(key) != key


@given(namespaces, labels)
def test_the_queue_of_a_label_is_no_other_kind_of_queue(namespace: str, label: str) -> None:
    queue = naming.labelled_queue(namespace, label)
    assert queue.startswith(f"rpc_{namespace}_queue_")
    assert queue not in other_names(namespace)


@given(namespaces, namespaces, labels)
@example("a", "a_queue", "b_request")
@example("a", "a_queue_b", "x")
def test_no_label_names_a_queue_of_another_namespace(
    namespace: str, other: str, label: str
) -> None:
    queue = naming.labelled_queue(namespace, label)
    try:
        naming.check_namespace(other)
    except ValueError:
        return
    if other != namespace:
        assert not queue.startswith(f"rpc_{other}_queue_")
        assert queue not in other_names(other)


@given(st.text(st.sampled_from("_queuerst"), min_size=1, max_size=12), labels)
def test_no_label_imitates_the_queue_of_any_namespace(namespace: str, label: str) -> None:
    """Whatever stands in front of the last part cannot be read in two ways."""
    try:
        naming.check_namespace(namespace)
    except ValueError:
        return
    queue = naming.labelled_queue(namespace, label)
    readings = [
        queue[len("rpc_") : found.start()]
        for found in re.finditer("(?=_queue_)", queue)
        if found.start() > len("rpc_")
    ]
    allowed = [reading for reading in readings if is_namespace(reading)]
    assert allowed == [namespace]


def is_namespace(text: str) -> bool:
    try:
        naming.check_namespace(text)
    except ValueError:
        return False
    return True


@given(labels)
@example("x" * 120)
@example("\n" * 40)
@example("\n" * 41)
@example("é" * 60)
@example("é" * 61)
def test_names_fit_and_are_plain(label: str) -> None:
    queue = naming.labelled_queue(LONGEST_NAMESPACE, label)
    assert len(queue.encode()) <= 255
    assert PLAIN.fullmatch(queue)
    assert len(naming.routing_key_for(label).encode()) <= 255
    # The codec that other programs use judges them too.
    for name in (queue, *other_names(LONGEST_NAMESPACE)):
        commands.Queue.Declare(queue=name).marshal()
        assert len(name) <= 255


@given(labels)
def test_a_label_of_plain_characters_is_kept_as_it_is(label: str) -> None:
    if re.fullmatch(r"[A-Za-z0-9_.:@,/+ -]{1,120}", label):
        assert naming.labelled_queue("n", label) == f"rpc_n_queue_{label}"
        assert naming.routing_key_for(label) == label


@pytest.mark.parametrize("text", ["", None, 7, b"Alice", ["Alice"], "\ud800", "a\udfffb"])
def test_what_is_no_text_is_no_label_and_no_key(text: object) -> None:
    with pytest.raises(ValueError, match="label"):
        naming.labelled_queue("n", text)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="routing key"):
        naming.routing_key_for(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "namespace",
    ["", "a b", "a/b", "a\n", "é", "a" * 101, "a_queue", "a_queue_b", "_queue", "mgt", None, 7],
)
def test_a_namespace_that_could_be_taken_for_something_else_is_refused(namespace: object) -> None:
    with pytest.raises(ValueError, match="the namespace"):
        naming.check_namespace(namespace)  # type: ignore[arg-type]


def test_a_url_in_the_place_of_the_namespace_is_told_without_its_password() -> None:
    with pytest.raises(ValueError, match="the broker's URL is given as url=") as caught:
        naming.check_namespace("amqp://guest:secret@broker.example/")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("namespace", ["a", "math", "a.b:c-d_e", "queue", "queues_", "a" * 100])
def test_a_plain_namespace_is_taken(namespace: str) -> None:
    assert naming.check_namespace(namespace) == namespace


@given(namespaces)
def test_a_worker_s_id_is_its_namespace_and_a_number_and_no_two_are_equal(namespace: str) -> None:
    one, other = naming.new_worker_id(namespace), naming.new_worker_id(namespace)
    assert one != other
    of, _, number = one.rpartition("-")
    assert of == namespace
    assert naming.is_worker_number(number)


@given(st.one_of(st.text(max_size=12), st.sampled_from(["", "0123456789", "012345678g"])))
def test_a_worker_s_number_is_ten_hex_digits(text: str) -> None:
    assert naming.is_worker_number(text) == bool(re.fullmatch(r"[0-9a-f]{10}", text))


def test_ids_that_nobody_can_guess_are_long_and_differ() -> None:
    ids = {naming.new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in ids)
    assert all(naming.check_client_id(each) == each for each in ids)


@pytest.mark.parametrize("uuid", ["", "a b", "é", "a\n", "a" * 101, "queue_", "queue_1", None, 7])
def test_a_client_s_own_id_may_not_be_taken_for_something_else(uuid: object) -> None:
    with pytest.raises(ValueError, match="the uuid"):
        naming.check_client_id(uuid)  # type: ignore[arg-type]


def test_only_known_types_of_queues_have_arguments() -> None:
    assert naming.queue_arguments("classic") == {"x-queue-type": "classic"}
    assert naming.queue_arguments("quorum")["x-queue-type"] == "quorum"
    for queue_type in ("stream", "", None):
        with pytest.raises(ValueError, match="queue_type must be one of"):
            naming.queue_arguments(queue_type)  # type: ignore[arg-type]


def test_hostile_labels_and_keys_work_on_the_broker_and_reach_only_their_own(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    server = make_server(serve=False)
    server.add_function(lambda text: text, name="echo")
    client = make_client()
    for label in HOSTILE:
        client.create_new_request_queue(label, x_expires=60)
    results = {label: client.defer(routing_key=label).echo(label) for label in HOSTILE}
    for label in HOSTILE:
        queue = naming.labelled_queue(namespace, label)
        assert server.receive_from_queue(label, max_calls=1) == 1, queue
        assert results[label].get() == label
        assert broker.ready_messages(queue) == 0
    assert not broker.ready_messages(naming.request_queue(namespace))
