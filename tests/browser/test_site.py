"""The docs site in a real browser, light and dark, on a desktop and on a phone."""

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.support.capture.browser import Watch, violations
from tests.support.paths import ROOT

pytestmark = pytest.mark.browser

PAGES = (
    "index", "quickstart", "results", "tutorials/first-persona", "guides/ship", "reference/api", "explanation/limits",
)  # fmt: skip
MODES = {
    "light desktop": ("light", 1280, 900),
    "dark desktop": ("dark", 1280, 900),
    "light phone": ("light", 390, 780),
    "dark phone": ("dark", 390, 780),
}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the site, as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=True,
    )  # fmt: skip
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(params=MODES)
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    scheme, width, height = MODES[request.param]
    with browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme) as context:
        yield context.new_page()


def test_every_page_is_accessible_and_fits_its_screen(site: str, page: Page, watch: Watch) -> None:
    watch.on(page, site)
    for name in PAGES:
        page.goto(f"{site}/{name}.html")
        assert violations(page) == [], name
        beyond = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert beyond <= 0, f"{name} is {beyond} pixels wider than its screen"
        if folder := os.environ.get("PYDEPER_SCREENSHOTS"):
            scheme = page.evaluate("document.body.dataset.mdColorScheme")
            file = f"{name.replace('/', '-')}-{scheme}-{page.viewport_size['width']}.png"  # type: ignore[index]
            page.screenshot(path=Path(folder) / file)
