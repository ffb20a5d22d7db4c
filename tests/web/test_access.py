"""Who may see a dashboard."""

from __future__ import annotations

import socket

import pytest

from amphora.web.access import Access, is_loopback
from amphora.web.serving import address


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.5", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_only_on_this_machine_no_token_is_needed(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    assert (Access(host, 1).token is None) is loopback


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ("localhost:8765", True),
        ("LOCALHOST", True),
        ("127.0.0.1:8765", True),
        ("[::1]:8765", True),
        ("10.0.0.5", True),
        (socket.gethostname(), True),
        ("board.example.org:80", True),
        ("evil.example.org", False),
        ("127.0.0.1.evil.example.org", False),
        ("localhost.evil.example.org:8765", False),
        ("[evil]", False),
        ("", False),
    ],
)
def test_names_that_were_made_to_point_here_are_refused(header: str, known: bool) -> None:
    access = Access("127.0.0.1", 8765, ["Board.example.org"])
    assert access.knows_host({"HTTP_HOST": header}) is known


def test_the_token_is_in_the_cookie_and_nothing_else_is_taken_for_it() -> None:
    access = Access("10.0.0.5", 8765)
    assert access.token is not None
    assert len(access.token) >= 32
    assert access.token != Access("10.0.0.5", 8765).token
    assert access.knows(access.token)
    assert not access.knows("")
    assert not access.knows("t\xf6ken")
    cookie, *attributes = access.cookie.split("; ")
    assert set(attributes) == {"Path=/", "HttpOnly", "SameSite=Lax"}
    assert access.is_allowed({"HTTP_COOKIE": f"other=1; {cookie}"})
    for wrong in (
        "",
        cookie[:-1],
        "[]=1; ;;=",
        f"amphora_1={access.token}",
        "amphora_8765=",
        "a\x00b",
    ):
        assert not access.is_allowed({"HTTP_COOKIE": wrong})
    assert not Access("127.0.0.1", 1).knows("")


def test_an_action_comes_from_our_own_page() -> None:
    ours = {"HTTP_HOST": "localhost:8765", "HTTP_X_AMPHORA": "1"}
    assert Access.is_own(ours)
    assert Access.is_own({**ours, "HTTP_ORIGIN": "http://localhost:8765"})
    assert Access.is_own({**ours, "HTTP_ORIGIN": "https://localhost:8765"})
    assert not Access.is_own({"HTTP_HOST": "localhost:8765"})
    assert not Access.is_own({**ours, "HTTP_ORIGIN": "http://evil.example.org"})
    assert not Access.is_own({**ours, "HTTP_ORIGIN": "null"})


def test_the_address_to_open_can_be_opened() -> None:
    assert address("127.0.0.1", 8765, None) == "http://127.0.0.1:8765/"
    assert address("::1", 1, None) == "http://[::1]:1/"
    assert address("0.0.0.0", 1, "abc") == f"http://{socket.gethostname()}:1/?token=abc"


@pytest.mark.parametrize("name", ["board.example.org:8765", "http://board", "", "größe.example"])
def test_a_name_that_no_browser_sends_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a host"):
        Access("127.0.0.1", 8765, [name])
