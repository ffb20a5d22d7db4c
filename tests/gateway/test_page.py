"""The page with a form for each function."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from amphora.web.pages import POLICY
from tests.gateway.conftest import MakeGateway, ServeGateway, ask
from tests.support.browser import Browser
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
    script = (STATIC / "gateway.js").read_text()
    assert not re.search(r"https?:|innerHTML|insertAdjacentHTML|document\.write|\beval\(", script)
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
