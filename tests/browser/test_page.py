"""The capture page from the first screen to the last: the real command and a real browser."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route

import pydeper
from pydeper.bundle.layout import BUILTIN
from tests.support.browser import Capture, Watch, until, violations
from tests.support.capture import command, make_pictures

pytestmark = pytest.mark.browser

DEMO = BUILTIN / "tiny" / "demo"
TEXTS = json.loads((Path(pydeper.__file__).parent / "capture/page/texts.json").read_text("utf-8"))
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    demo_pictures(tmp_path / "pictures", 4)
    return tmp_path


@pytest.fixture
def visitor(folder: Path, context: BrowserContext, watch: Watch) -> Iterator[Visitor]:
    with command(folder / "pictures", "-o", folder / "ana.jsonl") as (_, address):
        yield Visitor(context, watch, address)


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


# --- nothing is lost


def test_a_reload_loses_neither_points_nor_text(visitor: Visitor, folder: Path):
    visitor.agrees()
    visitor.capture.look((0.2, 0.2, 0.6))
    visitor.capture.write("Half of it")
    visitor.page.reload()
    visitor.sees("work")
    visitor.capture.is_ready()
    assert visitor.capture.part("textarea").input_value() == "Half of it"
    visitor.describes("Half of it, and the rest.", (0.8, 0.8, 0.6))
    visitor.page.reload()
    visitor.sees("review")
    assert "and the rest" in visitor.page.locator("#said").text_content()
    (sample,) = pydeper.read_samples(folder / "ana.jsonl")
    first, *_, last = (f.box for f in sample.trajectory if f.duration > 0.35)
    assert first[2] < 0.4 < 0.6 < last[0]


def test_a_killed_server_loses_nothing(folder: Path, context: BrowserContext, watch: Watch):
    arguments = (folder / "pictures", "-o", folder / "ana.jsonl")
    with command(*arguments) as (process, address):
        visitor = Visitor(context, watch, address)
        visitor.agrees()
        visitor.describes("Before.")
        visitor.press("keep")
        visitor.capture.is_ready()
        visitor.capture.look((0.3, 0.3, 0.6))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        visitor.capture.write("While it was away.")
        visitor.capture.done()
        until(visitor.page, "document.getElementById('status').textContent.includes('kept in this browser')")
    with command(*arguments):
        visitor.sees("review")
    assert [s.description for s in pydeper.read_samples(folder / "ana.jsonl")] == ["Before.", "While it was away."]


def test_a_page_that_is_closed_while_the_server_is_away_goes_on(folder: Path, context: BrowserContext, watch: Watch):
    arguments = (folder / "pictures", "-o", folder / "ana.jsonl")
    with command(*arguments) as (process, address):
        visitor = Visitor(context, watch, address)
        visitor.agrees()
        visitor.capture.look((0.3, 0.3, 0.6))
        visitor.capture.write("Not lost.")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        visitor.capture.done()
        until(visitor.page, "document.getElementById('status').textContent.includes('kept in this browser')")
        visitor.page.close()
    with command(*arguments):
        again = Visitor(context, watch, address)
        again.sees("review")
    assert [sample.description for sample in pydeper.read_samples(folder / "ana.jsonl")] == ["Not lost."]


def test_a_lost_connection_is_waited_out(visitor: Visitor, folder: Path):
    visitor.agrees()
    lost: list[str] = []

    def lose(route: Route) -> None:
        lost.append(route.request.url)
        route.abort() if len(lost) < 3 else route.continue_()

    visitor.page.route("**/api/pictures/0", lose)
    visitor.describes("After a while.")
    assert len(lost) == 3
    assert (folder / "ana.recordings.jsonl").read_text().count('"kind": "recording"') == 1


def test_a_picture_that_does_not_come_is_asked_for_again(visitor: Visitor):
    lost: list[str] = []

    def lose(route: Route) -> None:
        lost.append(route.request.url)
        route.abort() if len(lost) < 3 else route.continue_()

    visitor.page.route("**/api/pictures/0/image*", lose)
    visitor.agrees()
    assert len(lost) == 3
    until(visitor.page, "document.getElementById('status').textContent === ''")


def test_a_full_disk_is_said_and_waited_out(visitor: Visitor, folder: Path):
    visitor.agrees()
    answers: list[int] = []

    def full(route: Route) -> None:
        answers.append(507)
        problem = {"title": "No space", "status": 507, "code": "no-space", "detail": "The disk is full."}
        if len(answers) < 2:
            route.fulfill(status=507, content_type="application/problem+json", body=json.dumps(problem))
        else:
            route.continue_()

    visitor.page.route("**/api/pictures/0", full)
    visitor.capture.look(*STOPS)
    visitor.capture.write("When there is room.")
    visitor.capture.done()
    until(visitor.page, "document.getElementById('status').textContent.includes('disk is full')")
    visitor.sees("review")
    assert len(pydeper.read_samples(folder / "ana.jsonl")) == 1


def test_two_tabs_do_not_mix(visitor: Visitor, folder: Path, context: BrowserContext, watch: Watch):
    visitor.agrees()
    visitor.capture.look((0.2, 0.2, 0.5))
    visitor.capture.write("From the first tab")
    visitor.page.wait_for_timeout(100)
    second = Visitor(context, watch, visitor.page.url)
    second.sees("work")
    visitor.sees("elsewhere")
    assert second.capture.part("textarea").input_value() == "From the first tab"
    second.describes("From the second tab.")
    second.press("keep")
    visitor.press("here")
    visitor.sees("work")
    assert "Picture 2" in visitor.progress
    second.sees("elsewhere")
    assert [sample.description for sample in pydeper.read_samples(folder / "ana.jsonl")] == ["From the second tab."]


def test_a_page_of_an_earlier_session_writes_nothing_into_this_one(
    tmp_path: Path, context: BrowserContext, watch: Watch
):
    pictures = demo_pictures(tmp_path / "pictures", 4)
    with command(pictures, "-o", tmp_path / "ana.jsonl") as (process, address):
        visitor = Visitor(context, watch, address)
        visitor.agrees()
        visitor.capture.look(*STOPS)
        visitor.capture.write("By ana.")
        process.terminate()
        process.wait()
    with command(pictures, "-o", tmp_path / "ben.jsonl", "--port", address.rpartition(":")[2]):
        visitor.capture.done()
        visitor.sees("welcome")
    assert not (tmp_path / "ben.jsonl").exists()


def test_a_hundred_pictures_in_one_session(tmp_path: Path, context: BrowserContext, watch: Watch):
    with command(make_pictures(tmp_path / "pictures", 101), "-o", tmp_path / "ana.jsonl") as (_, address):
        visitor = Visitor(context, watch, address)
        visitor.agrees()
        for number in range(100):
            visitor.capture.is_ready()
            visitor.page.mouse.move(*visitor.capture.place(0.3, 0.3))
            visitor.page.mouse.move(*visitor.capture.place(0.5, 0.5))
            visitor.capture.write(f"Number {number}.")
            visitor.capture.done()
            visitor.sees("review")
            visitor.press("keep")
            visitor.page.locator("#review").wait_for(state="hidden")
    assert len(pydeper.read_samples(tmp_path / "ana.jsonl")) == 100


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
