"""What is said where an extra is not installed."""

from __future__ import annotations

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "needed", "extra"),
    [
        ("amphora.observe.exposition", "prometheus_client", "metrics"),
        ("amphora.observe.tracing", "opentelemetry.context", "otel"),
    ],
)
def test_what_needs_an_extra_names_it(
    module: str, needed: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    importlib.import_module("amphora.observe.metrics")
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, needed, None)  # type: ignore[arg-type]
    with pytest.raises(ImportError, match=rf"pip install 'amphora\[{extra}\]'"):
        importlib.import_module(module)
