"""The site builds, and fetches nothing from elsewhere when it is read."""

import json
import re
from pathlib import Path

import pytest

import pydeper
import pydeper.readers
from tests.support.docs.pages import (
    DOCS,
    build_site,
    pages,
    read,
)


def shown_pages() -> list[Path]:
    """The pages that readers see: of docs/results those that explain, and not the tables which these hold already."""
    tables = DOCS / "results"
    return [page for page in pages() if tables not in page.parents or "<!-- results: " in read(page)]


def test_the_site_builds_and_fetches_nothing_when_it_is_read(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the docs extra is not installed")
    pytest.importorskip("mkdocstrings_handlers.python", reason="the docs extra is not installed")
    site = tmp_path / "site"
    build_site(site)
    built = list(site.rglob("*.html"))
    shown = {site / page.relative_to(DOCS).with_suffix(".html") for page in shown_pages()}
    assert {*built} == {*shown, site / "changelog.html", site / "404.html"}
    for file in built:
        html = file.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=\"(?:https?:)?//[^\"]+", html)
        fetched += re.findall(r"<link[^>]*rel=\"(?:stylesheet|preconnect|icon)\"[^>]*href=\"(?:https?:)?//[^\"]+", html)
        assert not fetched, f"{file}: {fetched}"
        linked = re.findall(r"<a\s[^>]*href=\"(?![a-z]+:)([^\"#?]+)", html) if file.name != "404.html" else []
        assert not [link for link in linked if not (file.parent / link).exists()], file
    assert not list(site.rglob("*.py"))
    found = {entry["location"] for entry in json.loads(read(site / "search/search_index.json"))["docs"]}
    public = {f"reference/api.html#pydeper.{public}" for public in pydeper.__all__ if public != "__version__"}
    assert public <= found
    assert all(f'href="{location}"' in read(site / "reference.html") for location in public)
    # Read from disk, the search takes its index from a script, and a worker of our own.
    assert read(site / "search/search_index.js").startswith("var __index = {")
    assert 'src="javascripts/iframe-worker.js"' in read(site / "index.html")
