from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext

from tests.support.browser import Watch, chromium


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Nothing leaves the origin, and no page complains; checked at the end of each test."""
    watch = Watch()
    yield watch
    assert watch.strayed == []
    assert watch.complaints == []


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with browser.new_context(viewport={"width": 1100, "height": 900}, locale="en-GB") as context:
        yield context
