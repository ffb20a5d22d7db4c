"""The cluster in `examples/cluster/`, as it is written: no container runs here."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from amphora.transport.connections.endpoint import endpoint
from tests.support.processes import ROOT

FOLDER = ROOT / "examples/cluster"
CONFIG = (FOLDER / "rabbitmq.conf").read_text()
NODES = ["rabbit1", "rabbit2", "rabbit3"]


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    return loaded


def test_there_are_three_nodes_of_one_version_with_one_cookie(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert list(services) == NODES
    assert [each["hostname"] for each in services.values()] == NODES
    images = {each["image"] for each in services.values()}
    assert len(images) == 1
    assert re.fullmatch(r"rabbitmq:\d+\.\d+", images.pop())
    cookies = {each["environment"]["RABBITMQ_ERLANG_COOKIE"] for each in services.values()}
    assert len(cookies) == 1


def test_each_node_keeps_its_data_in_a_volume_of_its_own(compose: dict[str, Any]) -> None:
    assert list(compose["volumes"]) == NODES
    for name, service in compose["services"].items():
        volume, config = service["volumes"]
        assert volume == f"{name}:/var/lib/rabbitmq"
        assert config == "./rabbitmq.conf:/etc/rabbitmq/conf.d/20-cluster.conf:ro"


def test_the_nodes_find_one_another_by_their_names() -> None:
    members = re.findall(r"^cluster_formation\.classic_config\.nodes\.\d = (.*)$", CONFIG, re.M)
    assert members == [f"rabbit@{name}" for name in NODES]


def test_the_url_that_readers_are_given_has_every_node_in_it(compose: dict[str, Any]) -> None:
    published = [service["ports"] for service in compose["services"].values()]
    addresses = {port.removesuffix(":5672") for [port] in published}
    for name in ("README.md", "compose.yaml"):
        [url] = re.findall(r"AMQP_URL=(\S+)", (FOLDER / name).read_text())
        assert {f"{host}:{port}" for host, port in endpoint(url).hosts} == addresses
