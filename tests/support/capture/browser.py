"""A real Chromium for one test, and how a person would use the capture page in it."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip


def chromium_path() -> str:
    """Where Chromium is; a test is skipped where there is none."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("there is no Chromium: install one, or name it in $CHROMIUM")
    return found


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    path = chromium_path()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@attrs.frozen
class Watch:
    """What a page did that it should not do.

    Attributes:
        strayed: Requests to other origins.
        complaints: Errors on the console, violations of the policy, exceptions.
    """

    strayed: list[str] = attrs.Factory(list)
    complaints: list[str] = attrs.Factory(list)

    def on(self, page: Page, origin: str) -> None:
        """Begins to watch a page."""

        def requested(request: Request) -> None:
            if not request.url.startswith((origin, "data:", "blob:")):
                self.strayed.append(request.url)

        def said(message: ConsoleMessage) -> None:
            # Refusals by the server and a server that is away are part of some tests.
            if message.type == "error" and "Failed to load resource" not in message.text:
                self.complaints.append(message.text)

        page.on("request", requested)
        page.on("console", said)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.add_init_script(
            "addEventListener('securitypolicyviolation', (event) => console.error('policy', event.blockedURI))"
        )


def until(page: Page, expression: str, seconds: float = 30) -> None:
    """Waits until an expression holds on a page; the page's own waiting functions are against its policy."""
    for _ in range(round(seconds / 0.05)):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never held: {expression}")


@attrs.frozen
class Capture:
    """A page with one `<pydeper-capture>`.

    Attributes:
        page: The page.
    """

    page: Page

    def part(self, name: str) -> Locator:
        """Something inside of the element."""
        return self.page.locator(f"pydeper-capture {name}")

    def is_ready(self) -> None:
        """Waits for the picture."""
        self.page.wait_for_selector("pydeper-capture .stage[data-state=shown]")

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Fractions of the picture as pixels of the page."""
        self.part(".stage").scroll_into_view_if_needed()
        box = self.part(".stage").bounding_box()
        assert box is not None
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def look(self, *stops: tuple[float, float, float]) -> None:
        """Moves the mouse to each stop, x and y and seconds, and rests there."""
        for x, y, seconds in stops:
            self.page.mouse.move(*self.place(x, y), steps=4)
            self.page.wait_for_timeout(1000 * seconds)

    def write(self, text: str) -> None:
        """Writes a description."""
        self.part("textarea").fill(text)

    def done(self) -> None:
        """Presses the button."""
        self.part("button.done").click()

    @property
    def points(self) -> list[list[Any]]:
        """What is recorded so far."""
        points: list[list[Any]] = self.page.evaluate("document.querySelector('pydeper-capture').draft.points")
        return points


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with a page for people with disabilities."""
    found = Axe().run(page).response["violations"]
    return [f"{entry['id']}: {node['html'][:120]}" for entry in found for node in entry["nodes"]]
