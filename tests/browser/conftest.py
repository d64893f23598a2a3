from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext

from tests.support.capture.browser import Watch, chromium
from tests.support.capture.command import command
from tests.support.capture.visitor import Visitor, demo_pictures


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    demo_pictures(tmp_path / "pictures", 4)
    return tmp_path


@pytest.fixture
def visitor(folder: Path, context: BrowserContext, watch: Watch) -> Iterator[Visitor]:
    with command(folder / "pictures", "-o", folder / "ana.jsonl") as (_, address):
        yield Visitor(context, watch, address)
