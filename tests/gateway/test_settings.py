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
        (("math",), {"cors_origins": ["https://*.example.org"]}, "is not an origin"),
        (("math",), {"cors_origins": ["https://me@example.org"]}, "is not an origin"),
        (("math",), {"cors_origins": ["https://größe.example"]}, "is not an origin"),
        (("math",), {"host_names": ["math.example.org:8080"]}, "is not the name of a host"),
        (("math",), {"host_names": ["https://math.example.org"]}, "is not the name of a host"),
        (("math",), {"host_names": [""]}, "is not the name of a host"),
        (("math",), {"tokens": ["one "]}, "begin or end with a space"),
        (("math",), {"tokens": []}, "there are no tokens in tokens: give one, or None if anyone"),
        (("math",), {"tokens": 5}, "tokens takes texts, such as {'a long random text'}, not int"),
        (("math",), {"tokens": b"secret"}, "tokens takes texts, .*, not bytes$"),
        (("math",), {"tokens": [b"secret"]}, "printable ASCII"),
        (("math",), {"max_body": "1M"}, "max_body must be a whole number of at least 1"),
        (("math",), {"max_streams": 0}, "max_streams must be a whole number of at least 1"),
        (("math",), {"statuses": {"E": 200}}, "from 400 to 599"),
        (("math",), {"timeout": 0}, "a timeout must be"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    namespaces: tuple[str, ...], settings: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        Gateway(*namespaces, **settings)


def test_a_text_alone_is_one_of_several_and_not_its_letters() -> None:
    with Gateway(
        "math",
        url="amqp://127.0.0.1:1/",
        functions="math.add",
        tokens="secret",
        cors_origins="https://shop.example.org",
        host_names="math.example.org",
    ) as gateway:

        def status(token: str, host: str = "math.example.org") -> int:
            sent = {"HOST": host, "AUTHORIZATION": f"Bearer {token}"}
            return ask(gateway, "/math/sub", [1, 2], **sent).status

        assert status("s") == 401
        assert status("secret") == 404
        assert status("secret", "m") == 421


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://Shop.example.org", "https://shop.example.org"),
        ("https://shop.example.org:443", "https://shop.example.org"),
        ("http://shop.example.org:80", "http://shop.example.org"),
        ("http://shop.example.org:443", "http://shop.example.org:443"),
        ("HTTP://[::1]:8080", "http://[::1]:8080"),
        ("*", "https://anywhere.example"),
    ],
)
def test_an_origin_is_known_however_it_is_written(written: str, sent: str) -> None:
    with Gateway("math", url="amqp://127.0.0.1:1/", cors_origins=[written]) as gateway:
        answer = ask(gateway, "/math/add", None, "OPTIONS", ORIGIN=sent)
        assert answer.headers["Access-Control-Allow-Origin"] in (sent, "*")
        other = ask(gateway, "/math/add", None, "OPTIONS", ORIGIN=f"{sent}.evil.example")
        assert ("Access-Control-Allow-Origin" in other.headers) is (written == "*")


@pytest.mark.parametrize("name", ["Math.example.org", "math_1", "10.0.0.5", "::1"])
def test_a_host_name_may_be_any_name_or_address(name: str) -> None:
    with Gateway("math", url="amqp://127.0.0.1:1/", host_names=[name]) as gateway:
        host = f"[{name}]:8080" if ":" in name else f"{name}:8080"
        assert ask(gateway, "/", None, "GET", HOST=host).status == 200


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
