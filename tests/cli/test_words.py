"""Any text, on the command line and in the output, in any locale; and output that nobody takes."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from gevent import subprocess

from amphora.transport.words import utf8_word
from tests.support.brokers import on_embedded
from tests.support.processes import ROOT
from tests.support.rpc import MakeServer

TEXT = "grün 😀"
# Whatever the tests themselves are run with.
C_LOCALE = {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "",
}


def say(text: Any) -> Any:
    return text


def fail(text: str) -> None:
    raise ValueError(text)


def much() -> str:
    return "line\n" * 200_000


def many() -> list[str]:
    return ["line"] * 200_000


def amphora(
    url: str, *words: str | bytes, module: str = "amphora", shell: str = "", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own, with `shell` behind it if that is given."""
    command: list[str | bytes] = [sys.executable, "-m", module, *words]
    if shell:
        command = ["bash", "-c", f'set -o pipefail; "$@" {shell}', "bash", *command]
    return subprocess.run(
        command,
        env={**os.environ, "AMQP_URL": url, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=40,
    )


@on_embedded
@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C"}, C_LOCALE, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "utf-8"}],
    ids=["C", "C without UTF-8", "ascii", "utf-8"],
)
def test_any_text_is_sent_and_printed_in_any_locale(
    make_server: MakeServer, url: str, namespace: str, environment: dict[str, str]
) -> None:
    make_server(say)
    done = amphora(url, "call", f"{namespace}.say", TEXT, **environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"{TEXT}\n"
    done = amphora(url, "call", f"{namespace}.say", f"text={TEXT}", "--json", **environment)
    assert done.stdout.decode() == f'{{"result":"{TEXT}"}}\n'


@on_embedded
def test_what_the_encoding_of_the_output_does_not_have_is_escaped(
    make_server: MakeServer, url: str, namespace: str
) -> None:
    make_server(say, fail)
    done = amphora(url, "call", f"{namespace}.say", TEXT, PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stdout) == (0, b"gr\xfcn \\U0001f600\n")
    done = amphora(url, "call", f"{namespace}.fail", TEXT, PYTHONIOENCODING="latin-1")
    assert done.returncode == 1
    assert b"ValueError: gr\xfcn \\U0001f600" in done.stderr


@on_embedded
@pytest.mark.parametrize("environment", [{}, C_LOCALE], ids=["", "C"])
def test_bytes_that_are_no_text_are_an_error_of_usage(
    url: str, namespace: str, environment: dict[str, str]
) -> None:
    done = amphora(url, "call", f"{namespace}.say", b"gr\xfcn", **environment)
    assert done.returncode == 2
    assert b"an argument cannot be read: it is not UTF-8" in done.stderr
    done = amphora(url, namespace, b'{"c": "\xfc"}', module="amphora.arpc.sender", **environment)
    assert (done.returncode, done.stderr) == (2, b"arpc_msg_sender: an argument is not UTF-8\n")


@on_embedded
def test_arpc_s_sender_sends_any_text_in_any_locale(
    make_server: MakeServer, url: str, namespace: str
) -> None:
    make_server(say)
    document = f'{{"c": "say", "x": "{TEXT}"}}'
    done = amphora(url, namespace, document, module="amphora.arpc.sender", **C_LOCALE)
    assert done.returncode == 0
    assert rb"'x': 'gr\xfcn \U0001f600'" in done.stderr


def test_a_url_that_is_no_text_is_told_without_its_password(namespace: str) -> None:
    call = ("call", f"{namespace}.say")
    for done in (
        amphora("amqp://u:se\udcffcret@127.0.0.1:1", *call),
        amphora("", "--url", b"amqp://u:se\xffcret@127.0.0.1:1", *call),
    ):
        assert done.returncode == 2
        assert b"not UTF-8" in done.stderr
        assert b"cret" not in done.stderr


@on_embedded
@pytest.mark.parametrize("shell", ["| head -c 1", "2>&1 | true", "| true"])
def test_a_reader_that_has_seen_enough_is_no_error(
    make_server: MakeServer, url: str, namespace: str, shell: str
) -> None:
    make_server(much, many, fail)
    for words in (("much",), ("many", "--json"), ("fail", "x", "--json")):
        done = amphora(url, "call", f"{namespace}.{words[0]}", *words[1:], shell=shell)
        assert done.returncode in (0, 1)
        assert done.stderr == b""


@on_embedded
@pytest.mark.parametrize("words", [("much",), ("say", "1"), ("say", "1", "--json")], ids=" ".join)
def test_a_disk_that_is_full_is_said_in_one_line(
    make_server: MakeServer, url: str, namespace: str, words: tuple[str, ...]
) -> None:
    make_server(much, say)
    done = amphora(url, "call", f"{namespace}.{words[0]}", *words[1:], shell="> /dev/full")
    assert done.returncode == 1
    assert done.stderr == (
        b"amphora: error: the output cannot be written: No space left on device\n"
    )


def test_a_word_is_what_it_is_in_utf8() -> None:
    raw = TEXT.encode()
    assert utf8_word(TEXT) == TEXT
    assert utf8_word(raw.decode("ascii", "surrogateescape")) == TEXT
    for odd in ("gr\udcfcn", "\ud800"):
        with pytest.raises(ValueError, match="not UTF-8") as caught:
            utf8_word(odd)
        assert caught.value.__cause__ is None
