"""Take the pictures of the messages example: `python -m docs.images.messages`, while it runs."""

from pathlib import Path

from tests.support.browser import Browser, Tab

HERE = Path(__file__).parent


def sign_in(browser: Browser, port: int, name: str) -> Tab:
    page = browser.open(f"http://127.0.0.1:{port}/")
    page.type("#name", f"{name}\n")
    page.wait_for_text("#messages", f"Hello, {name}!")
    return page


def main() -> None:
    with Browser(width=500, height=640) as browser:
        alice, bob = sign_in(browser, 8001, "Alice"), sign_in(browser, 8002, "Bob")
        alice.type("#to", "Bob")
        alice.type("#text", "Are you coming to the harbour tonight? The boats leave at eight.\n")
        bob.wait_for_text("#messages", "at eight")
        bob.type("#text", "Yes! Save me a seat by the lamp.\n")
        alice.wait_for_text("#messages", "by the lamp")
        alice.screenshot(HERE / "messages-alice.png")
        bob.screenshot(HERE / "messages-bob.png")


if __name__ == "__main__":
    main()
