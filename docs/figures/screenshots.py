"""Takes the docs' pictures of the capture page: `python -m docs.figures.screenshots`, with Chromium (see $CHROMIUM).

Somebody who looks at the demonstration's pictures is acted out, in a real browser in front of the real command.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from pydeper.bundle.layout import BUILTIN

DEMO = BUILTIN / "tiny" / "demo"
IMAGES = Path(__file__).parents[1] / "images"
STOPS = ((0.16, 0.18, 0.7), (0.52, 0.16, 0.4), (0.52, 0.52, 0.4), (0.5, 0.82, 0.9))
DESCRIPTION = "A big green heart, then a black disc next to it, a purple plus below, and a green arrow."


def main() -> None:
    """Takes all pictures."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        take(browser, "desktop", width=1000, height=940)
        take(browser, "dark", width=1000, height=940, dark=True)
        take(browser, "phone", width=390, height=780)
        browser.close()


def take(browser: Browser, name: str, *, width: int, height: int, dark: bool = False) -> None:
    """Acts out one session; the replay and the end are taken on the desktop alone."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as address:
        page.goto(address)
        page.locator("#agree").click()
        page.locator("pydeper-capture .stage[data-state=shown]").wait_for()
        look(page)
        page.locator("pydeper-capture textarea").evaluate("(node, text) => { node.value = text; }", DESCRIPTION)
        save(page, name)
        if name != "desktop":
            page.close()
            return
        page.locator("pydeper-capture button.done").click()
        page.locator("#review:not([hidden])").wait_for()
        page.wait_for_timeout(3000)  # the replay
        save(page, "review")
        page.locator("#keep").click()
        page.locator("#enough").click()
        page.locator("#outcome:not([hidden])").wait_for(timeout=60_000)
        page.wait_for_timeout(500)
        save(page, "result")
    page.close()


def look(page: Page) -> None:
    """Moves the pointer from one thing to the next."""
    stage = page.locator("pydeper-capture .stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box is not None
    for x, y, seconds in STOPS:
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=6)
        page.wait_for_timeout(1000 * seconds)


def save(page: Page, name: str) -> None:
    """Saves what is on the screen."""
    page.screenshot(path=IMAGES / f"capture-{name}.png")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Runs the command on a few pictures; yields the page's address."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for picture in [*sorted(DEMO.glob("ana-*.png")), DEMO / "scene.png"]:
        shutil.copy(picture, pictures)
    command = [sys.executable, "-m", "pydeper", "capture", str(pictures), "-o", str(folder / "ana.jsonl")]
    with subprocess.Popen([*command, "--model", "tiny", "--no-open"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield next(found[0] for line in process.stdout if (found := re.search(r"http://\S+", line)))
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
