"""The page with a form for each function."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from decimal import Decimal
from typing import Any, Literal

import pytest

from amphora.web.pages import POLICY
from tests.gateway.conftest import MakeGateway, ServeGateway, ask
from tests.support.browser import Browser, Tab
from tests.support.processes import ROOT
from tests.support.rpc import Gate, MakeServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.parametrize("broker", ["embedded"], indirect=True)
STATIC = ROOT / "amphora" / "gateway" / "static"
PATIENCE = 30.0


def test_the_page_and_its_parts_are_served_with_a_strict_policy(
    make_gateway: MakeGateway,
) -> None:
    gateway = make_gateway()
    page = ask(gateway, "/")
    assert page.headers["Content-Security-Policy"] == POLICY
    assert "unsafe" not in POLICY
    sources = re.findall(r'(?:src|href)="([^"]*)"', page.body.decode())
    for source in {*sources, "static/dom.js"}:
        part = ask(gateway, f"/{source}")
        assert part.status == 200
        assert part.headers["X-Content-Type-Options"] == "nosniff"
    assert ask(gateway, "/static/gateway.js").headers["Content-Type"].startswith("text/javascript")
    assert ask(gateway, "/", None, "HEAD").body == b""
    for path in ("/static/", "/static/../application.py", "/static/app.js", "/static/x"):
        assert ask(gateway, path).status == 404
    assert ask(gateway, "/", []).status == 405


def test_nothing_is_asked_of_another_host_and_nothing_is_inline(make_gateway: MakeGateway) -> None:
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|<script(?![^>]* src=)| style=| on\w+=|https?:", page)
    for script in STATIC.glob("*.js"):
        bad = r"https?:|innerHTML|insertAdjacentHTML|document\.write|\beval\("
        assert not re.search(bad, script.read_text()), script
    assert not re.search(r"@import|url\(", (STATIC / "gateway.css").read_text())


@pytest.mark.slow
def test_functions_are_called_from_a_browser(
    make_server: MakeServer,
    make_gateway: MakeGateway,
    serve_gateway: ServeGateway,
    namespace: str,
) -> None:
    gate = Gate()

    def order(article: str, number: int = 1) -> dict[str, object]:
        """Order <b>something</b>.

        It comes tomorrow.
        """
        return {"article": article, "number": number + 1}

    def numbers(most: int) -> Iterator[int]:
        yield from range(most)
        gate.hold("numbers")

    server = make_server(order)
    server.add_function(numbers, cancellable=True)
    port = serve_gateway(make_gateway(tokens=["secret"]))
    form = f'details[data-name="{namespace}.order"]'
    stream = f'details[data-name="{namespace}.numbers"]'
    with Browser() as browser:
        tab = browser.open(f"http://127.0.0.1:{port}/")
        tab.wait_for_text("#trouble", "A token is needed.", PATIENCE)
        tab.type("#token", "wrong\n")
        tab.wait_for_text("#trouble", "This token is not known here.", PATIENCE)
        tab.type("#token", "\u2603\n")
        tab.wait_for_text("#trouble", "A token has no such characters.", PATIENCE)
        tab.type("#token", "secret\n")
        tab.wait_for_text("#functions", "Order <b>something</b>", PATIENCE)
        tab.click(f"{form} summary")
        tab.wait_for_text(f"{form} .doc", "It comes tomorrow.", PATIENCE)
        tab.type(f'{form} input[name="article"]', "tea <i>")
        tab.click(f"{form} button")
        tab.wait_for_text(f"{form} pre", '"article": "tea <i>",\n  "number": 2', PATIENCE)
        tab.type(f'{form} input[name="number"]', '"x"\n')
        tab.wait_for_text(f"{form} pre", "422 WrongRequest", PATIENCE)
        tab.wait_for_text(f"{form} pre", "(it did not run)", PATIENCE)
        tab.click(f"{stream} summary")
        tab.type(f'{stream} input[name="most"]', "3\n")
        tab.wait_for_text(f"{stream} pre", "0\n1\n2", PATIENCE)
        # Leaving cancels.
        wait_until(lambda: gate.entered == ["numbers"])
        tab.click(f"{stream} button.quiet")
        tab.wait_for_text(f"{stream} pre", "cancelled", PATIENCE)
        wait_until(lambda: gate._inside == 0)
        assert not gate.passed
        tab.type("#filter", "numb")
        assert tab.run(f"return document.querySelector('{form}').hidden")


def open_form(tab: Tab, name: str) -> str:
    """Open the form of a function, and return its selector."""
    form = f'details[data-name="{name}"]'
    tab.wait_for_text("#functions", name.rpartition(".")[2], PATIENCE)
    tab.run("document.querySelector(arguments[0]).open = true", form)
    return form


@pytest.mark.slow
def test_a_form_sends_what_was_written_and_shows_what_was_answered(
    make_server: MakeServer,
    make_gateway: MakeGateway,
    serve_gateway: ServeGateway,
    namespace: str,
) -> None:
    def text(value: str) -> str:
        return repr(value)

    def maybe(value: str | None = None) -> str:
        return repr(value)

    def either(value: int | str) -> str:
        return repr(value)

    def one_of(value: Literal["1", "2"]) -> str:
        return repr(value)

    def money(value: Decimal) -> str:
        return repr(value)

    def anything(value: Any) -> Any:
        return {"got": value, "empty": [[], {}]}

    def number(value: int) -> int:
        return value + 1

    functions = (text, maybe, either, one_of, money, anything, number)
    make_server(*functions)
    port = serve_gateway(make_gateway())

    def shown(value: str) -> str:
        return f'{{\n  "got": {value},\n  "empty": [\n    [],\n    {{}}\n  ]\n}}'

    with Browser() as browser:
        tab = browser.open(f"http://127.0.0.1:{port}/")
        for name, written, answer in (
            ("text", "42", "\"'42'\""),
            ("text", "null", "\"'null'\""),
            ("text", '"quoted"', "\"'quoted'\""),
            ("maybe", "true", "\"'true'\""),
            ("maybe", "null", '"None"'),
            ("either", "5", '"5"'),
            ("either", "007", "\"'007'\""),
            ("one_of", "1", "\"'1'\""),
            ("money", "1.10", "\"Decimal('1.10')\""),
            # Numbers that JavaScript does not have.
            ("number", "9007199254740993", "9007199254740994"),
            ("anything", "1.0", shown("1.0")),
            ("anything", "12345678901234567890123", shown("12345678901234567890123")),
            ("anything", "-0.0", shown("-0.0")),
            ("anything", '"{\\"a: [,\\\\"', shown('"{\\"a: [,\\\\"')),
        ):
            form = open_form(tab, f"{namespace}.{name}")
            field = f'{form} input[name="value"]'
            tab.run("document.querySelector(arguments[0]).value = ''", field)
            tab.type(field, f"{written}\n")
            tab.wait_for_text(f"{form} pre", answer, PATIENCE)
            assert tab.text(f"{form} pre") == answer


@pytest.mark.slow
def test_the_items_of_a_stream_stay_when_it_fails_or_ends(
    make_server: MakeServer,
    make_gateway: MakeGateway,
    serve_gateway: ServeGateway,
    namespace: str,
) -> None:
    def numbers(most: int) -> Generator[Any, None, str]:
        yield from range(most)
        yield "two\nlines \u2028 and more"
        if most == 3:
            raise KeyError("<b>")
        return "the end"

    make_server(numbers)
    port = serve_gateway(make_gateway())
    with Browser() as browser:
        tab = browser.open(f"http://127.0.0.1:{port}/")
        form = open_form(tab, f"{namespace}.numbers")
        field = f'{form} input[name="most"]'
        tab.type(field, "3\n")
        tab.wait_for_text(f"{form} pre", "KeyError", PATIENCE)
        script = "return document.querySelector(arguments[0]).textContent"
        assert tab.run(script, f"{form} pre").split("\n") == [
            "0",
            "1",
            "2",
            '"two\\nlines \u2028 and more"',
            "500 RemoteException: KeyError: <b> (it ran)",
        ]
        tab.run("document.querySelector(arguments[0]).value = ''", field)
        tab.type(field, "1\n")
        tab.wait_for_text(f"{form} pre", 'returned "the end"', PATIENCE)
        assert tab.text(f"{form} pre").startswith("0\n")


@pytest.mark.slow
def test_long_names_fit_and_a_page_that_was_too_early_shows_what_comes(
    make_server: MakeServer,
    make_gateway: MakeGateway,
    serve_gateway: ServeGateway,
    namespace: str,
) -> None:
    def run(parameter: int) -> int:
        return parameter

    port = serve_gateway(make_gateway())
    with Browser() as browser:
        tab = browser.open(f"http://127.0.0.1:{port}/")
        tab.wait_for_text("#trouble", "No worker has described its functions.", PATIENCE)
        server = make_server(serve=False)
        server.add_function(run, "very" * 50)
        server.serve()
        open_form(tab, f"{namespace}.{'very' * 50}")
        assert not tab.text("#trouble")
        widths = "return [document.documentElement.scrollWidth, innerWidth]"
        shown, there = tab.run(widths)
        assert shown == there
