"""Somebody who uses the capture page in a real browser."""

import shutil
from pathlib import Path

from playwright.sync_api import BrowserContext, Page

from pydeper.bundle.layout import BUILTIN
from tests.support.capture.browser import Capture, Watch

DEMO = BUILTIN / "tiny" / "demo"
STOPS = ((0.2, 0.3, 0.5), (0.7, 0.5, 0.5))


def demo_pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for picture in sorted(DEMO.glob("*.png"))[:count]:
        shutil.copy(picture, folder)
    return folder


class Visitor:
    """Somebody who uses the page."""

    def __init__(self, context: BrowserContext, watch: Watch, address: str) -> None:
        self.page: Page = context.new_page()
        self.capture = Capture(self.page)
        watch.on(self.page, address)
        self.page.goto(address)

    def sees(self, screen: str) -> None:
        """Waits for a screen."""
        self.page.locator(f"#{screen}:not([hidden])").wait_for()

    def press(self, button: str) -> None:
        self.page.locator(f"#{button}").click()

    def agrees(self) -> None:
        self.sees("welcome")
        self.press("agree")
        self.sees("work")
        self.capture.is_ready()

    def describes(self, text: str, *stops: tuple[float, float, float]) -> None:
        """Looks, writes, and comes to the replay."""
        self.capture.is_ready()
        self.capture.look(*(stops or STOPS))
        self.capture.write(text)
        self.capture.done()
        self.sees("review")

    @property
    def progress(self) -> str:
        return self.page.locator("#progress").text_content() or ""
