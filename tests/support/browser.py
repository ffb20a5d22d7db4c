"""A real browser: Chromium without a window, driven by its chromedriver.

    with Browser() as browser:
        alice = browser.open("http://127.0.0.1:8001")
        alice.type("#name", "Alice")
        alice.click("button")
        alice.wait_for_text("#messages", "Hello, Alice!")
        alice.close()

The driver speaks WebDriver (https://www.w3.org/TR/webdriver2/), which is JSON over HTTP.  Each
`open` is a tab with a session storage of its own; Browser and tabs are used by one greenlet.
"""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gevent import subprocess

from tests.support.http import ask
from tests.support.ports import claim_ports
from tests.support.waiting import wait_until

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Nothing is asked of the network but the page itself; root has no sandbox, and may not need one.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
)
# How long the driver waits for an element that is to be used, and is not there yet, in ms.
PATIENCE = 30_000
# What WebDriver calls an element in JSON (its section 12.1).
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class BrowserError(Exception):
    """The browser did not do what it was told."""


def find_browser() -> tuple[str, str] | None:
    """Return the paths of Chromium and its driver; None if one of them is not installed."""
    driver = shutil.which("chromedriver")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    return (browser, driver) if browser and driver else None


class Browser:
    """A browser of the test's own, with an empty profile."""

    def __init__(self, width: int = 520, height: int = 640) -> None:
        found = find_browser()
        if found is None:
            raise BrowserError(
                "Chromium and its chromedriver are needed, and not both installed"
                " (`make test` installs them as root on Debian and Ubuntu)"
            )
        self._binary, self._driver = found
        self._size = f"--window-size={width},{height}"
        self._session = ""

    def __enter__(self) -> Self:
        self._folder = tempfile.mkdtemp(prefix="amphora-browser-")
        ((self._port, self._claim),) = claim_ports(1).items()
        self._process = subprocess.Popen(
            [self._driver, f"--port={self._port}"],
            env={**os.environ, "HOME": self._folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait_until(self._is_ready, "chromedriver is ready")
            profile = f"--user-data-dir={self._folder}/profile"
            options = {"binary": self._binary, "args": [*FLAGS, self._size, profile]}
            wanted = {"goog:chromeOptions": options, "timeouts": {"implicit": PATIENCE}}
            asked = {"capabilities": {"alwaysMatch": wanted}}
            self._session = self._tell("POST", "/session", asked)["sessionId"]
            self._first = self.tell("GET", "/window")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def open(self, url: str) -> Tab:
        """Open a page in a new tab."""
        # The tab that was used last may be closed.
        self.tell("POST", "/window", {"handle": self._first})
        handle = self.tell("POST", "/window/new", {"type": "tab"})["handle"]
        tab = Tab(self, handle)
        tab.go(url)
        return tab

    def tell(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Give the driver a command, and return its answer."""
        return self._tell(method, f"/session/{self._session}{path}", body)

    def _tell(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = ask(self._port, path, body, method)
        value = answer.json["value"]
        if answer.status != 200:
            raise BrowserError(f"{method} {path}: {value['error']}: {value['message'][:300]}")
        return value

    def _is_ready(self) -> bool:
        try:
            return bool(self._tell("GET", "/status")["ready"])
        except OSError:
            return False

    def _end(self) -> None:
        # The browser leaves the driver's process group, so it has to be ended by the driver.
        try:
            if self._session:
                self.tell("DELETE", "")
        finally:
            self._process.kill()
            self._process.wait()
            self._claim.close()
            shutil.rmtree(self._folder, ignore_errors=True)


class Tab:
    """One tab.  Elements are named by CSS selectors."""

    def __init__(self, browser: Browser, handle: str) -> None:
        self._browser = browser
        self._handle = handle

    def go(self, url: str) -> None:
        """Load a page."""
        self._tell("POST", "/url", {"url": url})

    def type(self, selector: str, text: str) -> None:
        """Type a text into an element; a line end is the enter key."""
        keys = text.replace("\n", "\ue007")
        self._tell("POST", f"/element/{self._element(selector)}/value", {"text": keys})

    def click(self, selector: str) -> None:
        """Click an element."""
        self._tell("POST", f"/element/{self._element(selector)}/click", {})

    def text(self, selector: str) -> str:
        """Return the text of an element as it is shown; "" if there is no such element."""
        return str(
            self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        )

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page, and return what it returns."""
        return self._tell("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait_for_text(self, selector: str, text: str, timeout: float = 40.0) -> None:
        """Wait until an element shows a text."""
        last = ""

        def shown() -> bool:
            nonlocal last
            last = self.text(selector)
            return text in last

        try:
            wait_until(shown, timeout=timeout)
        except TimeoutError:
            raise BrowserError(f"{selector} does not show {text!r}, but {last!r}") from None

    def screenshot(self, path: Path) -> None:
        """Save what the tab shows as a PNG."""
        path.write_bytes(base64.b64decode(self._tell("GET", "/screenshot")))

    def close(self) -> None:
        """Close the tab, as a user does."""
        self._tell("DELETE", "/window")

    def _element(self, selector: str) -> str:
        found = self._tell("POST", "/element", {"using": "css selector", "value": selector})
        return str(found[ELEMENT])

    def _tell(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        self._browser.tell("POST", "/window", {"handle": self._handle})
        return self._browser.tell(method, path, body)
