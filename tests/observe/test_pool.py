"""The metrics of several processes as one, and what Prometheus reads of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from amphora.observe.exposition import SnapshotCollector, exposition
from amphora.observe.families import BUCKETS, FAMILIES, Family
from amphora.observe.pool import Pool, Snapshot, added, decode, encode

CALLS = "rpc_server_call_duration_seconds"


def of_a_worker(*, expired: float = 0, in_flight: float = 0, waiting: float = 0) -> Snapshot:
    """Return what a worker reports."""
    return {
        "amphora_expired_total": [(["math"], [expired])],
        "amphora_in_flight": [(["math"], [in_flight])],
        "amphora_queue_messages": [(["math"], [waiting])],
    }


def histogram(*values: float) -> list[float]:
    """Return a histogram of some values."""
    numbers = [0.0] * (len(BUCKETS) + 2)
    for value in values:
        numbers[sum(bound < value for bound in BUCKETS)] += 1
        numbers[-1] += value
    return numbers


def read(snapshot: Snapshot) -> dict[str, float]:
    """Return the samples that Prometheus reads, by name and labels."""
    return {
        f"{sample.name}{json.dumps(sample.labels, sort_keys=True)}": sample.value
        for family in text_string_to_metric_families(exposition(snapshot).decode())
        for sample in family.samples
    }


def test_the_pool_counts_what_its_workers_count_and_the_queue_once() -> None:
    pool = Pool()
    pool.report(1, of_a_worker(expired=2, in_flight=3, waiting=40))
    pool.report(2, of_a_worker(expired=5, in_flight=1, waiting=41))
    assert read(pool.snapshot()) == {
        'amphora_expired_total{"namespace": "math"}': 7,
        'amphora_in_flight{"namespace": "math"}': 4,
        'amphora_queue_messages{"namespace": "math"}': 41,
    }


def test_a_report_that_comes_again_counts_once() -> None:
    pool = Pool()
    for expired in (1, 2, 2):
        pool.report(1, of_a_worker(expired=expired))
    assert read(pool.snapshot())['amphora_expired_total{"namespace": "math"}'] == 2


def test_what_a_dead_worker_has_counted_stays_and_its_gauges_go() -> None:
    pool = Pool()
    pool.report("first", of_a_worker(expired=2, in_flight=3, waiting=40))
    for _ in range(2):
        pool.gone("first")
    pool.gone("never heard of")
    assert read(pool.snapshot()) == {'amphora_expired_total{"namespace": "math"}': 2}
    pool.report("second", of_a_worker(expired=1, in_flight=1))
    pool.gone("second")
    assert read(pool.snapshot()) == {'amphora_expired_total{"namespace": "math"}': 3}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans()), max_size=40))
def test_counters_never_fall_and_are_exact_whatever_workers_end(
    steps: list[tuple[int, int, bool]],
) -> None:
    pool = Pool()
    lives = [0] * 4
    counted: dict[tuple[int, int], int] = {}
    for worker, more, ends in steps:
        process = worker, lives[worker]
        counted[process] = counted.get(process, 0) + more
        pool.report(process, of_a_worker(expired=counted[process]))
        if ends:
            pool.gone(process)
            lives[worker] += 1
        (series,) = pool.snapshot()["amphora_expired_total"]
        assert series[1] == [sum(counted.values())]


def test_a_pool_does_not_change_what_was_reported_to_it() -> None:
    pool = Pool()
    reported = of_a_worker(expired=1)
    pool.report(1, reported)
    pool.report(2, of_a_worker(expired=1))
    pool.snapshot()
    pool.gone(1)
    pool.gone(2)
    pool.snapshot()
    assert reported == of_a_worker(expired=1)


def test_histograms_are_added_bucket_by_bucket() -> None:
    one: Snapshot = {CALLS: [(["math/add", "OK"], histogram(0.0004, 0.003))]}
    other: Snapshot = {CALLS: [(["math/add", "OK"], histogram(0.004, 700))]}
    samples = read(added([one, other]))
    labels = {"rpc_method": "math/add", "rpc_status_code": "OK", "rpc_system_name": "amphora"}

    def sample(name: str, **more: str) -> float:
        return samples[f"{CALLS}_{name}{json.dumps({**labels, **more}, sort_keys=True)}"]

    assert sample("count") == 4
    assert sample("sum") == pytest.approx(700.0074)
    assert [sample("bucket", le=le) for le in ("0.0005", "0.0025", "0.005", "60.0", "+Inf")] == [
        *(1, 1, 3, 3),
        4,
    ]


def test_what_prometheus_reads_has_all_metrics_with_their_kinds() -> None:
    full: Snapshot = {
        name: [(list(family.labels), [1.0] * family.numbers)] for name, family in FAMILIES.items()
    }
    read_back = {
        family.name: family for family in text_string_to_metric_families(exposition(full).decode())
    }
    assert set(read_back) == {name.removesuffix("_total") for name in FAMILIES}
    for name, family in FAMILIES.items():
        found = read_back[name.removesuffix("_total")]
        assert (found.type, found.documentation) == (family.kind, family.help)
        assert found.samples


def test_label_values_may_be_any_text() -> None:
    odd = 'a"b\\c\nd é'
    samples = read({"amphora_expired_total": [([odd], [1.0])]})
    assert samples == {f"amphora_expired_total{json.dumps({'namespace': odd})}": 1}


def test_a_program_exposes_them_with_its_own_metrics() -> None:
    registry = CollectorRegistry()
    Counter("of_mine", "Mine", registry=registry).inc(3)
    registry.register(SnapshotCollector(lambda: of_a_worker(expired=1)))
    text = generate_latest(registry).decode()
    assert "of_mine_total 3.0" in text
    assert 'amphora_expired_total{namespace="math"} 1.0' in text
    with pytest.raises(ValueError, match="amphora_expired"):
        Counter("amphora_expired", "Not mine", registry=registry)


def test_a_snapshot_travels_as_one_line() -> None:
    snapshot = of_a_worker(expired=1, in_flight=2)
    line = encode(snapshot)
    assert b"\n" not in line
    assert decode(line) == {
        name: [(labels, numbers) for labels, numbers in series] for name, series in snapshot.items()
    }


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b'{"made_up_total": []}', "there is no metric 'made_up_total'"),
        (b'{"amphora_expired_total": [[["math"], [1.0, 2.0]]]}', "too few or too many parts"),
        (b'{"amphora_expired_total": [[["math", "more"], [1.0]]]}', "too few or too many parts"),
        (b'{"amphora_expired_total": [[["math"], ["1"]]]}', "Expected `float`"),
        (b'{"amphora_expired_total": [[["math"], [1e999]]]}', "out of range"),
    ],
)
def test_what_is_no_snapshot_is_refused(line: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decode(line)


def test_metrics_are_named_as_prometheus_has_it() -> None:
    def fits(name: str, family: Family) -> bool:
        return name.endswith("_total") == (family.kind == "counter")

    assert all(fits(name, family) for name, family in FAMILIES.items())
    assert list(BUCKETS) == sorted(set(BUCKETS))
