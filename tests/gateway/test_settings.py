"""What a gateway is made with, and a broker that is away."""

from __future__ import annotations

from typing import Any

import pytest

from amphora.gateway import Gateway, directory
from tests.gateway.conftest import ask


@pytest.mark.parametrize(
    ("namespaces", "settings", "why"),
    [
        ((), {}, "needs a namespace"),
        (("a/b",), {}, "must be 1 to 100 letters"),
        (("math", "users", "math"), {}, "math is given twice"),
        (("math",), {"functions": ["users.f"]}, "is not a function of math"),
        (("math",), {"functions": ["math."]}, "is not a function of math"),
        (("math", "users"), {"functions": ["math.f"]}, "no function of users is among"),
        (("math",), {"tokens": [""]}, "printable ASCII"),
        (("math",), {"cors_origins": ["shop.example.org"]}, "is not an origin"),
        (("math",), {"cors_origins": ["https://shop.example.org/"]}, "is not an origin"),
        (("math",), {"statuses": {"E": 200}}, "from 400 to 599"),
        (("math",), {"timeout": 0}, "a timeout must be"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    namespaces: tuple[str, ...], settings: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        Gateway(*namespaces, **settings)


def test_a_namespace_with_a_dot_is_told_from_its_function() -> None:
    assert directory.split("a.b.c.d", ["a", "a.b"]) == ("a.b", "c.d")
    assert directory.split("a.c", ["a", "a.b"]) == ("a", "c")
    assert directory.split("b.c", ["a"]) == ("", "")


def test_a_broker_that_is_away_is_no_news_for_strangers(closed_port: int, namespace: str) -> None:
    with Gateway(namespace, url=f"amqp://secret:pass@127.0.0.1:{closed_port}") as gateway:
        answer = ask(gateway, f"/{namespace}/add", [1, 2], X_REQUEST_TIMEOUT="0.3")
        assert answer.status in (503, 504)
        assert answer.json["executed"] is False
        assert str(closed_port).encode() not in answer.body
        assert b"secret" not in answer.body


def test_what_cannot_be_asked_is_not_described_as_nothing(
    closed_port: int, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "TIMEOUT", 0.1)
    with Gateway(namespace, url=f"amqp://127.0.0.1:{closed_port}") as gateway:
        answer = ask(gateway, "/openapi.json")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        asked = ask(gateway, "/rpc", {"jsonrpc": "2.0", "method": "rpc.discover", "id": 1})
        assert asked.json["error"]["data"]["status"] == 503
