"""The workflows run what developers run, and actions that cannot change under them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.support.processes import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_their_commit_and_jobs_run_make(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
        ran = [word for step in job["steps"] for word in step.get("run", "").split()]
        called = [ran[place + 1] for place, word in enumerate(ran) if word == "make"]
        assert called
        if called == ["${{"]:
            called = job["strategy"]["matrix"]["target"]
        assert set(called) <= targets
