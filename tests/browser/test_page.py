"""The capture page from the first screen to the last: the real command and a real browser."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext

import pydeper
from tests.support.capture.browser import Watch, until, violations
from tests.support.capture.command import command
from tests.support.capture.visitor import Visitor, demo_pictures

pytestmark = pytest.mark.browser

TEXTS = json.loads((Path(pydeper.__file__).parent / "capture/page/texts.json").read_text("utf-8"))


# --- from the first picture to the persona


@pytest.mark.parametrize("mode", ["viewport", "trace"])
def test_five_pictures_become_a_persona(tmp_path: Path, context: BrowserContext, watch: Watch, mode: str):
    pictures, out = demo_pictures(tmp_path / "pictures", 6), tmp_path / "ana.jsonl"
    with command(pictures, "-o", out, "--mode", mode) as (_, address):
        visitor = Visitor(context, watch, address)
        visitor.agrees()
        for number in range(5):
            x = 0.15 + 0.1 * number
            assert f"Picture {number + 1} of 5" in visitor.progress
            visitor.describes(f"Picture {number}.", (x, 0.3, 0.5), (0.8, 0.8, 1.0))
            # Stored before the next is shown.
            assert len(pydeper.read_samples(out)) == number + 1
            visitor.press("keep")
        visitor.page.locator("#outcome:not([hidden])").wait_for(timeout=60_000)
        described = visitor.page.locator("#described").text_content()
        with visitor.page.expect_download() as download:
            visitor.page.locator("a[href='/api/persona']").click()
        assert download.value.suggested_filename == "ana.safetensors"
    samples = pydeper.read_samples(out)
    assert [sample.description for sample in samples] == [f"Picture {number}." for number in range(5)]
    for number, sample in enumerate(samples):
        long = [f for f in sample.trajectory if f.duration > 0.35]
        centres = [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in (f.box for f in long)]
        assert centres == [(pytest.approx(0.15 + 0.1 * number, abs=0.05), pytest.approx(0.3, abs=0.05)),
                           (pytest.approx(0.8, abs=0.05), pytest.approx(0.8, abs=0.05))]  # fmt: skip
        assert 0.9 < long[1].duration < 3
        assert long[0].duration < long[1].duration
    persona = pydeper.Persona.load(tmp_path / "ana.safetensors")
    assert persona.num_samples == 5
    model = pydeper.DeperModel.from_pretrained("tiny")
    assert model.describe(pictures / "ben-1.png", persona) == described


def test_the_keyboard_alone_is_enough(visitor: Visitor, folder: Path):
    page, keyboard = visitor.page, visitor.page.keyboard
    visitor.sees("welcome")
    keyboard.press("Tab")  # the box of publication
    keyboard.press("Space")
    keyboard.press("Tab")
    keyboard.press("Enter")
    visitor.capture.is_ready()
    keyboard.press("Tab")
    for key in ("ArrowLeft", "ArrowLeft", "Shift+ArrowUp"):
        keyboard.press(key)
        page.wait_for_timeout(300)
    keyboard.press("Enter")
    keyboard.type("By keys alone.")
    keyboard.press("Tab")
    keyboard.press("Enter")
    visitor.sees("review")
    (sample,) = pydeper.read_samples(folder / "ana.jsonl")
    assert sample.description == "By keys alone."
    assert len(sample.trajectory) >= 1
    journal = (folder / "ana.recordings.jsonl").read_text()
    assert '"input": "keyboard"' in journal
    assert '"publish": true' in journal


def test_a_finger_is_enough(folder: Path, browser: Browser, watch: Watch):
    with (
        command(folder / "pictures", "-o", folder / "ana.jsonl") as (_, address),
        browser.new_context(viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True) as phone,
    ):
        visitor = Visitor(phone, watch, address)
        visitor.sees("welcome")
        visitor.page.locator("#agree").tap()
        visitor.capture.is_ready()
        session = phone.new_cdp_session(visitor.page)
        for place in ((0.3, 0.3), (0.7, 0.7)):
            x, y = visitor.capture.place(*place)
            session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
            visitor.page.wait_for_timeout(500)
            session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        visitor.capture.write("By a finger.")
        visitor.capture.part("button.done").tap()
        visitor.sees("review")
    (sample,) = pydeper.read_samples(folder / "ana.jsonl")
    centres = [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in (f.box for f in sample.trajectory)]
    assert centres == [pytest.approx((0.3, 0.3), abs=0.05), pytest.approx((0.7, 0.7), abs=0.05)]
    assert '"input": "touch"' in (folder / "ana.recordings.jsonl").read_text()


def test_what_was_begun_is_there_after_the_persona(visitor: Visitor):
    visitor.agrees()
    visitor.describes("The first.")
    visitor.press("keep")
    visitor.capture.is_ready()
    visitor.capture.write("Only begun")
    visitor.press("enough")
    visitor.page.locator("#outcome:not([hidden])").wait_for(timeout=60_000)
    visitor.press("more")
    visitor.sees("work")
    assert visitor.capture.part("textarea").input_value() == "Only begun"


def test_pictures_are_skipped_recorded_again_and_enough(visitor: Visitor, folder: Path):
    visitor.agrees()
    assert not visitor.page.locator("#enough").is_visible()
    visitor.press("skip")
    until(visitor.page, "document.getElementById('progress').textContent.startsWith('Picture 2')")
    visitor.describes("First try.")
    assert "First try." in visitor.page.locator("#said").text_content()
    visitor.press("again")
    visitor.sees("look-actions")
    visitor.describes("Second try.")
    assert [sample.description for sample in pydeper.read_samples(folder / "ana.jsonl")] == ["Second try."]
    visitor.press("keep")
    visitor.press("enough")
    visitor.page.locator("#outcome:not([hidden])").wait_for(timeout=60_000)
    visitor.press("more")
    visitor.sees("work")
    visitor.describes("Not wanted.")
    visitor.press("discard")
    visitor.sees("result")
    assert [sample.description for sample in pydeper.read_samples(folder / "ana.jsonl")] == ["Second try."]


def test_everything_is_deleted_on_the_last_page(visitor: Visitor, folder: Path):
    visitor.agrees()
    visitor.describes("Soon gone.")
    visitor.press("keep")
    visitor.press("enough")
    visitor.press("delete")
    visitor.press("confirm-cancel")
    assert (folder / "ana.jsonl").exists()
    visitor.press("delete")
    visitor.press("confirm-delete")
    visitor.sees("ended")
    assert [path.name for path in folder.iterdir()] == ["pictures"]
    assert visitor.page.evaluate("localStorage.length") == 0
    visitor.page.reload()
    visitor.sees("ended")


# --- said where the person is


def test_an_empty_description_and_a_damaged_picture_are_said(folder: Path, context: BrowserContext, watch: Watch):
    (folder / "pictures" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with command(folder / "pictures", "-o", folder / "ana.jsonl") as (_, address):
        visitor = Visitor(context, watch, address)
        visitor.sees("welcome")
        assert "broken.jpg" in visitor.page.locator("#skipped-files").text_content()
        visitor.agrees()
        visitor.capture.done()
        assert "few words" in visitor.capture.part("[role=alert]").text_content()
        visitor.capture.write("No look at all.")
        visitor.capture.done()
        visitor.sees("review")
        assert "words alone" in visitor.page.locator("#problem").text_content()
    (sample,) = pydeper.read_samples(folder / "ana.jsonl")
    assert sample.trajectory is None


def test_the_page_speaks_german(folder: Path, context: BrowserContext, watch: Watch):
    with command(folder / "pictures", "-o", folder / "ana.jsonl", "--language", "de") as (_, address):
        visitor = Visitor(context, watch, address)
        visitor.agrees()
        assert visitor.page.locator("html").get_attribute("lang") == "de"
        assert visitor.page.locator("#work-title").text_content() == TEXTS["de"]["page"]["pictureTitle"]
        assert visitor.capture.part("button.done").text_content() == "Fertig"


def test_instructions_of_ones_own_are_shown(folder: Path, context: BrowserContext, watch: Watch):
    with command(folder / "pictures", "-o", folder / "ana.jsonl", "--instructions", "Say <b>all</b>.") as (_, address):
        visitor = Visitor(context, watch, address)
        visitor.agrees()
        assert visitor.page.locator("#instructions").text_content() == "Say <b>all</b>."


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100])
def test_everybody_can_use_every_screen(visitor: Visitor, scheme: Any, width: int):
    page = visitor.page
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")

    def is_fine() -> None:
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    visitor.sees("welcome")
    is_fine()
    visitor.agrees()
    is_fine()
    visitor.describes("A heart.")
    is_fine()
    visitor.press("keep")
    visitor.press("enough")
    page.locator("#outcome:not([hidden])").wait_for(timeout=60_000)
    is_fine()
    visitor.press("delete")
    page.locator("dialog[open]").wait_for()
    is_fine()
    visitor.press("confirm-delete")
    visitor.sees("ended")
    is_fine()
