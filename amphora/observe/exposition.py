"""Metrics in the text format that Prometheus reads.  Needs the extra `amphora[metrics]`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

from amphora.observe.families import BUCKETS, FAMILIES, Family
from amphora.observe.pool import Snapshot

try:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.registry import Collector
except ImportError:
    raise ImportError(
        "metrics are exposed by prometheus-client, which is not installed:"
        " pip install 'amphora[metrics]'"
    ) from None

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Added to each metric whose name other systems may use, too.
_SYSTEM = ("rpc_system_name", "amphora")


def exposition(snapshot: Snapshot) -> bytes:
    """Return the body of an answer to `GET /metrics`; its content type is `CONTENT_TYPE`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SnapshotCollector(lambda: snapshot))
    return generate_latest(registry)


class SnapshotCollector(Collector):
    """A collector for a registry of prometheus-client, beside the program's own metrics.

        prometheus_client.REGISTRY.register(SnapshotCollector(metrics.snapshot))

    Args:
        snapshot: returns what to expose.
    """

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterator[Metric]:
        """Yield the metrics that there are, without values."""
        for name, family in FAMILIES.items():
            yield _metric(name, family, [])

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        snapshot = self._snapshot()
        for name, family in FAMILIES.items():
            if name in snapshot:
                yield _metric(name, family, snapshot[name])


def _metric(name: str, family: Family, series: list[tuple[list[str], list[float]]]) -> Metric:
    names, values = list(family.labels), list[str]()
    if name.startswith("rpc_"):
        names, values = [_SYSTEM[0], *names], [_SYSTEM[1]]
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(name, family.help, labels=names)
        for labels, numbers in series:
            histogram.add_metric([*values, *labels], _buckets(numbers), numbers[-1])
        return histogram
    plain = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric: CounterMetricFamily | GaugeMetricFamily = plain(name, family.help, labels=names)
    for labels, numbers in series:
        metric.add_metric([*values, *labels], numbers[0])
    return metric


def _buckets(numbers: list[float]) -> list[tuple[str, float]]:
    """Return the upper bounds of buckets as text, each with the number of values up to it."""
    return list(zip((*map(repr, BUCKETS), "+Inf"), accumulate(numbers[:-1]), strict=True))
