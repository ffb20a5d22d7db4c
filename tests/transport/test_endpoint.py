"""What a URL or single settings say about the broker, and what errors about them must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amphora.transport.connections.endpoint import Endpoint, endpoint


def test_all_parts_of_a_url_are_read() -> None:
    found = endpoint("amqp://us%65r:p%2F%40ss@one:1,[::1]:2,three/v%2Fh?heartbeat=5")

    assert found.hosts == (("one", 1), ("::1", 2), ("three", 5672))
    assert (found.user, found.password, found.vhost) == ("user", "p/@ss", "v/h")
    assert found.heartbeat == 5
    assert str(found) == "amqp://user:***@one:1,[::1]:2,three:5672/v%2Fh"


@pytest.mark.parametrize(
    ("url", "hosts", "vhost"),
    [
        ("amqp://", (("127.0.0.1", 5672),), "/"),
        ("amqp://h", (("h", 5672),), "/"),
        ("AMQP://H/", (("h", 5672),), "/"),
        ("amqp://h/v\n", (("h", 5672),), "v"),
        ("amqp://h?heartbeat=1", (("h", 5672),), "/"),
        ("amqp://u:p@ss@h:1/v", (("h", 1),), "v"),
    ],
)
def test_a_url_may_leave_things_out(url: str, hosts: Any, vhost: str) -> None:
    found = endpoint(url)

    assert (found.hosts, found.vhost) == (hosts, vhost)


PASSWORDS = (
    "se[cret]word",
    "secret\u2100word",
    "se[cretword",
    "]secretword",
    "s/ecretword",
    "s?ecretword",
    "secret#word",
    "5672/secretword",
    "5672?secretword",
    "5672?x=secretword",
    "p@1/secretword",
    "p@1?secretword",
    "secret\nword",
    "secret\x00word",
    "sec%ret%zzword",
    "secret,word",
    "secret:word",
    "secret word",
    "\ud800secretword",
)


@pytest.mark.parametrize("password", PASSWORDS, ids=ascii)
@pytest.mark.parametrize("tail", ["127.0.0.1:5672/", "127.0.0.1", "[::1", "h:x/", "h/a/b", "h?a=1"])
@pytest.mark.parametrize("scheme", ["amqp://", "amqps://", "http://", ""])
def test_no_error_and_no_log_shows_a_password(password: str, tail: str, scheme: str) -> None:
    told: list[object] = []
    try:
        told.append(endpoint(f"{scheme}user:{password}@{tail}"))
    except ValueError as error:
        told += [error, error.__cause__]
    for what in told:
        assert "cret" not in str(what)
        assert "cret" not in repr(what)


@given(st.text(max_size=20), st.sampled_from(["h:1/v", "h", "h/v?heartbeat=1"]))
def test_a_password_is_understood_or_refused(password: str, tail: str) -> None:
    try:
        found = endpoint(f"amqp://user:{password}@{tail}")
    except ValueError:
        return
    assert [host for host, _ in found.hosts] == ["h"]
    assert found.user == "user"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"url": 5}, "url must be text, not int"),
        ({"url": b"amqp://u:secret@h"}, "url must be text, not bytes"),
        ({"url": Path("x")}, "url must be text, not PosixPath"),
        ({"amqp_host": 5}, "amqp_host must be text, not int"),
        ({"amqp_password": 5}, "amqp_password must be text, not int"),
        ({"amqp_host": "amqp://u:secret@h"}, "a URL is given as url"),
        ({"amqp_port": "5672"}, "amqp_port must be a whole number from 1 to 65535, not '5672'"),
        ({"amqp_port": True}, "amqp_port must be a whole number"),
        ({"amqp_port": 70000}, "amqp_port must be a whole number"),
        ({"max_message_size": 1.5}, "max_message_size must be a whole number of at least 1"),
        ({"url": "amqp://u:p@h/a@b"}, "@ must be written as %40"),
        ({"url": "amqp://u:p@h/a\nb"}, "a line end"),
        ({"url": '"amqp://u:secret@h"'}, "must begin with .* and not with a quotation mark"),
        # As where a variable that a part comes from is empty.
        ({"url": "amqp://u:secret@h,"}, "one of the hosts in the broker's URL is empty"),
        ({"url": "amqp://u:secret@h,:5672/"}, "one of the hosts in the broker's URL is empty"),
        ({"url": "amqp://u:secret@.example.com"}, "is neither a name nor an address"),
        ({"url": "amqp://u:secret@a b"}, "is neither a name nor an address"),
        ({"url": f"amqp://{'h' * 64}"}, "is neither a name nor an address"),
        ({"amqp_host": ".example.com"}, "amqp_host must be the name or the address of a host$"),
        ({"amqp_host": "a\nb"}, "amqp_host must be the name or the address of a host$"),
        ({"amqp_host": "a,b"}, "of a host; several hosts are given in a url"),
        ({"url": f"amqp://h/{'v' * 128}"}, "the name of a vhost has at most 127 characters"),
        ({"amqp_vhost": "v" * 128}, "the name of a vhost has at most 127 characters"),
        ({"amqp_vhost": "\u20ac" * 86}, "the name of a vhost has at most 127 characters"),
        ({"connect_timeout": 0}, "connect_timeout must be more than 0 seconds"),
        ({"url": "amqp://h?connection_timeout=0"}, "must be seconds, more than 0"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_setting_of_another_type_is_a_clear_error(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        endpoint(**settings)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["my_host", "localhost.", "h\u00f6st.example", "fe80::1%eth0"])
def test_an_unusual_host_is_taken(host: str) -> None:
    assert endpoint(amqp_host=host).hosts == ((host, 5672),)
    written = f"[{host}]" if ":" in host else host
    assert endpoint(f"amqp://{written}/").hosts == ((host, 5672),)


def test_an_empty_host_or_vhost_is_as_good_as_none() -> None:
    plain = endpoint(amqp_user="u")
    assert endpoint(amqp_user="u", amqp_host="", amqp_vhost="") == plain
    assert (plain.hosts, plain.vhost) == ((("127.0.0.1", 5672),), "/")


def test_single_settings_make_an_endpoint() -> None:
    found = endpoint(amqp_host="h", amqp_port=1, amqp_user="u", amqp_password="p", amqp_vhost="v")

    assert found == Endpoint(hosts=(("h", 1),), user="u", password="p", vhost="v")


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("amqp://", "; `amphora broker` starts one here"),
        ("amqp://localhost:5672/", "; `amphora broker` starts one here"),
        ("amqp://guest:guest@[::1]:5673", "; `amphora broker --port 5673` starts one here"),
        ("amqp://rabbit.example.org", ""),
        ("amqp://shop:secret@localhost", ""),
        ("amqp://localhost/shop", ""),
        ("amqp://localhost,other", ""),
        ("amqps://localhost", ""),
    ],
)
def test_a_broker_of_amphora_s_is_proposed_where_it_would_help(url: str, hint: str) -> None:
    assert endpoint(url).hint == hint


def test_a_file_for_tls_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    for query, text in (
        ("cafile=/no/such.pem", "the cafile /no/such.pem of .* cannot be used: No such file"),
        (f"cafile={empty}", rf"the cafile {empty} of .* cannot be used: "),
        ("certfile=/a.pem&keyfile=/b.pem", "the certfile /a.pem with /b.pem of .* cannot be used"),
        ("certfile=/a.pem", "the certfile /a.pem of .* cannot be used: No such file or directory$"),
        (
            f"certfile={empty}",
            "cannot be used: .*; without a keyfile, the key must be in it as well",
        ),
    ):
        with pytest.raises(ValueError, match=text):
            endpoint(f"amqps://u:secret@h?{query}")
