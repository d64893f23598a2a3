"""The docs site in a real browser, light and dark, on a desktop and on a phone."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.support.capture.browser import Watch, violations
from tests.support.docs.pages import build_site
from tests.support.file_server import served

pytestmark = pytest.mark.browser

PAGES = (
    "index", "quickstart", "results", "tutorials/first-persona", "guides/ship", "reference/api", "explanation/limits",
    "benchmarks",
)  # fmt: skip
MODES = {
    "light desktop": ("light", 1280, 900),
    "dark desktop": ("dark", 1280, 900),
    "light phone": ("light", 390, 780),
    "dark phone": ("dark", 390, 780),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the site, as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    build_site(folder)
    with served(folder) as address:
        yield address


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
            scheme, width = page.evaluate("[document.body.dataset.mdColorScheme, innerWidth]")
            page.screenshot(path=Path(folder) / f"{name.replace('/', '-')}-{scheme}-{width}.png")
