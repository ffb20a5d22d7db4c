"""The example in `examples/monitoring/`: a server that is watched, and rules for Prometheus."""

from __future__ import annotations

import re
import shutil
from typing import Any

import pytest
import yaml
from gevent import subprocess
from prometheus_client.parser import text_string_to_metric_families

from amphora.observe.families import FAMILIES
from tests.support.brokers import Broker
from tests.support.http import ask
from tests.support.processes import ROOT, PythonProcess

FOLDER = ROOT / "examples/monitoring"
PAGE = (ROOT / "docs/how-to/monitor.rst").read_text(encoding="utf-8")
PROMTOOL = shutil.which("promtool")


def loaded(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    return [rule for group in loaded("rules.yml")["groups"] for rule in group["rules"]]


def test_the_server_shows_its_metrics_and_its_spans(broker_url: str) -> None:
    env = {"AMQP_URL": broker_url, "METRICS_PORT": "0"}
    try:
        with PythonProcess(FOLDER / "server.py", env=env, ready="metrics at") as server:
            port = int(re.findall(r":(\d+)/metrics", server.wait_for("metrics at"))[0])
            with PythonProcess(FOLDER / "client.py", env=env) as client:
                assert client.wait() == 0
                assert client.printed == ["180"]
            server.wait_for("SERVER shop/total OK")
            spans = [line.split() for line in server.lines if re.match("[0-9a-f]{32} ", line)]
            text = ask(port, "/metrics").body.decode()
            assert ask(port, "/").status == 404
    finally:
        Broker(broker_url).forget("shop")
    assert len({trace for trace, *_ in spans}) == 1
    assert sorted(kind for _, kind, *_ in spans) == ["CLIENT"] * 2 + ["SERVER"] * 3
    samples = {
        (sample.name, sample.labels.get("rpc_method"), sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["rpc_server_call_duration_seconds_count", "shop/total", None] == 1
    assert samples["rpc_client_call_duration_seconds_bucket", "shop/price", "+Inf"] == 2


def test_the_rules_are_about_metrics_that_there_are() -> None:
    suffixes = "_bucket", "_count", "_sum"
    known = {*FAMILIES} | {f"{name}{suffix}" for name in FAMILIES for suffix in suffixes}
    for rule in rules():
        named = set(re.findall(r"\b(?:amphora|rpc)_\w+", rule["expr"])) - {
            *("rpc_method", "rpc_status_code")
        }
        assert named
        assert named <= known, rule["alert"]


def test_each_alert_says_what_it_is_about_and_is_in_the_documentation() -> None:
    documented = re.findall(r"^``(Amphora\w+)``", PAGE, re.MULTILINE)
    assert [rule["alert"] for rule in rules()] == documented
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")


def test_prometheus_looks_at_the_rules_and_at_the_example() -> None:
    config = loaded("prometheus.yml")
    assert config["rule_files"] == ["rules.yml"]
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["127.0.0.1:9100"]}]
    alerts = {rule["alert"] for rule in rules()}
    tested = {
        each["alertname"]
        for test in loaded("rules_test.yml")["tests"]
        for each in test["alert_rule_test"]
    }
    assert tested <= alerts


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("test", "rules", "rules_test.yml")],
    ids=" ".join,
)
def test_promtool_finds_the_files_right(arguments: tuple[str, ...]) -> None:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *arguments], cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout.decode()


def test_each_metric_is_in_the_documentation() -> None:
    documented = re.findall(r"^``((?:amphora|rpc)_\w+)`` ", PAGE, re.MULTILINE)
    assert documented == list(FAMILIES)
