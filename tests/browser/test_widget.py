"""`<pydeper-capture>` on the page of somebody else, in a real browser."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Page

import pydeper.capture
from pydeper.gaze import find_fixations
from pydeper.readers import sample_from_recording
from tests.support.capture.browser import Capture, Watch, until, violations

pytestmark = pytest.mark.browser

PAGE_FILES = Path(pydeper.capture.__file__).parent / "page"
POLICY = "default-src 'none'; script-src 'self'; img-src 'self'; style-src 'self'"
HOST = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>A page of an app</title><link rel="icon" href="/icon.svg">
<script type="module" src="/pydeper-capture.js"></script><script type="module" src="/host.js"></script>
<main><h1>An app</h1><pydeper-capture {attributes}></pydeper-capture></main></html>"""
HOST_SCRIPT = """
window.events = [];
for (const name of ["start", "draft", "done", "error"])
  document.addEventListener(`pydeper-${name}`, ({ type, detail }) => events.push([type, detail]));
"""


def picture(size: tuple[int, int] = (800, 600)) -> bytes:
    file = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").resize(size).save(file, "PNG")
    return file.getvalue()


def stripes() -> bytes:
    """Black and white, 20 pixels each: whatever is sharp is steep, and what is blurred is grey."""
    file = io.BytesIO()
    columns = np.arange(800) // 20 % 2 * 255
    Image.fromarray(np.tile(columns.astype(np.uint8), (600, 1))).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """A site with an app's page; what follows the ? are the element's attributes."""
    files = {
        "/pydeper-capture.js": ("text/javascript", (PAGE_FILES / "pydeper-capture.js").read_bytes()),
        "/host.js": ("text/javascript", HOST_SCRIPT.encode()),
        "/icon.svg": ("image/svg+xml", (PAGE_FILES / "icon.svg").read_bytes()),
        "/picture.png": ("image/png", picture()),
        "/large.png": ("image/png", picture((4000, 3000))),
        "/stripes.png": ("image/png", stripes()),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, attributes = self.path.partition("?")
            given = attributes if "src=" in attributes else f"src=/picture.png&{attributes}"
            page = ("text/html", HOST.format(attributes=given.replace("&", " ")).encode())
            kind, body = page if path == "/" else files.get(path, ("text/plain", b""))
            self.send_response(200 if path == "/" or path in files else 404)
            for name, value in {"Content-Type": kind, "Content-Security-Policy": POLICY}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def show(context: BrowserContext, origin: str, watch: Watch) -> Callable[..., Capture]:
    def show(attributes: str = "", *, page: Page | None = None) -> Capture:
        page = page or context.new_page()
        watch.on(page, origin)
        page.goto(f"{origin}/?{attributes}")
        capture = Capture(page)
        capture.is_ready()
        return capture

    return show


def events(capture: Capture, name: str) -> list[Any]:
    return [detail for kind, detail in capture.page.evaluate("events") if kind == f"pydeper-{name}"]


def finished(capture: Capture, text: str = "A ring of light.") -> dict[str, Any]:
    capture.write(text)
    capture.done()
    until(capture.page, "events.some(([kind]) => kind === 'pydeper-done')")
    recording: dict[str, Any] = events(capture, "done")[0]
    return recording


def stops(points: list[list[Any]]) -> list[tuple[float, float, float]]:
    """Where somebody stopped in recorded points: x, y, seconds."""
    found = find_fixations([point[:2] if point[0] is not None else None for point in points],
                           [point[2] for point in points], max_gap=0.5)  # fmt: skip
    return [((x1 + x2) / 2, (y1 + y2) / 2, f.duration) for f in found for x1, y1, x2, y2 in [f.box]]


# --- looking


@pytest.mark.parametrize("mode", ["viewport", "trace"])
def test_the_stops_of_a_mouse_are_recorded(show: Callable[..., Capture], mode: str):
    capture = show(f"mode={mode}")
    capture.look((0.2, 0.3, 0.6), (0.8, 0.4, 1.2), (0.5, 0.9, 0.6))
    recording = finished(capture)
    long = [stop for stop in stops(recording["points"]) if stop[2] > 0.4]
    assert [(round(x, 1), round(y, 1)) for x, y, _ in long] == [(0.2, 0.3), (0.8, 0.4), (0.5, 0.9)]
    assert all(
        abs(x - a) < 0.03 and abs(y - b) < 0.03
        for (x, y, _), (a, b) in zip(long, [(0.2, 0.3), (0.8, 0.4), (0.5, 0.9)], strict=True)
    )
    assert long[1][2] > max(long[0][2], 1.0)
    assert recording["input"] == "mouse"
    assert recording["mode"] == mode
    assert recording["image_size"] == [800, 600]
    trajectory = sample_from_recording(recording, "picture.png").trajectory
    assert len(trajectory) >= 3


def steepest(capture: Capture) -> int:
    """The largest difference between neighbouring pixels of the picture that lies below the window."""
    steepest: int = capture.page.evaluate(
        """() => {
          const canvas = document.querySelector("pydeper-capture").shadowRoot.querySelector(".back");
          const { data } = canvas.getContext("2d").getImageData(0, canvas.height >> 1, canvas.width, 1);
          return Math.max(...data.slice(4).map((value, i) => Math.abs(value - data[i])));
        }"""
    )
    return steepest


def test_the_picture_is_blurred_up_to_its_edges_in_one_mode_and_plain_in_the_other(show: Callable[..., Capture]):
    plain, blurred = steepest(show("src=/stripes.png&mode=trace")), steepest(show("src=/stripes.png"))
    assert plain > 200
    assert blurred < 20


def test_only_a_circle_around_the_pointer_is_sharp(show: Callable[..., Capture]):
    capture = show("radius=0.1")
    assert capture.part(".window").evaluate("node => getComputedStyle(node).visibility") == "hidden"
    capture.look((0.25, 0.5, 0.1))
    box = capture.part(".window").bounding_box()
    x, y = capture.place(0.25, 0.5)
    height = capture.part(".stage").bounding_box()["height"]
    assert abs(box["x"] + box["width"] / 2 - x) < 2
    assert abs(box["y"] + box["height"] / 2 - y) < 2
    assert abs(box["width"] - 0.2 * height) < 2
    capture.page.mouse.move(5, 5)
    until(capture.page, "!document.querySelector('pydeper-capture').shadowRoot.querySelector('.stage.looking')")


def test_a_keyboard_moves_in_steps_and_continuously(show: Callable[..., Capture]):
    capture = show()
    page = capture.page
    capture.part(".stage").focus()
    page.keyboard.press("ArrowLeft")
    until(page, "document.querySelector('pydeper-capture').draft.points.length > 0")
    page.wait_for_timeout(100)
    x, y, _ = capture.points[-1]
    assert (x, y) == (pytest.approx(0.5 - 0.06 * 0.75, abs=0.002), pytest.approx(0.5, abs=0.001))
    page.keyboard.press("Shift+ArrowUp")
    page.wait_for_timeout(100)
    assert capture.points[-1][1] == pytest.approx(0.5 - 0.18, abs=0.002)
    page.keyboard.down("ArrowRight")
    until(page, "document.querySelector('pydeper-capture').draft.points.at(-1)[0] > 0.7")
    page.keyboard.up("ArrowRight")
    place = "document.querySelector('pydeper-capture').shadowRoot.querySelector('.place').textContent"
    until(page, f"{place}.includes('% from the left')")
    page.keyboard.press("Enter")
    page.keyboard.type("Written without a mouse.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    until(page, "events.some(([kind]) => kind === 'pydeper-done')")
    recording = events(capture, "done")[0]
    assert recording["input"] == "keyboard"
    assert recording["description"] == "Written without a mouse."
    assert len(stops(recording["points"])) >= 2


@pytest.mark.parametrize(("mode", "goes_on"), [("viewport", True), ("trace", False)])
def test_a_finger_looks(show: Callable[..., Capture], context: BrowserContext, mode: str, goes_on: bool):
    capture = show(f"mode={mode}")
    session = context.new_cdp_session(capture.page)
    for x, y in ((0.3, 0.3), (0.7, 0.6)):
        px, py = capture.place(x, y)
        session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": px, "y": py}]})
        capture.page.wait_for_timeout(500)
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        capture.page.wait_for_timeout(500)
    points = capture.points
    assert len(stops(points)) == 2
    assert abs(stops(points)[0][0] - 0.3) < 0.02
    assert (points[-1][0] is not None) is goes_on
    assert finished(capture)["input"] == "touch"


def test_writing_is_not_looking(show: Callable[..., Capture]):
    capture = show()
    capture.look((0.5, 0.5, 0.4))
    capture.part("textarea").evaluate("node => node.focus()")
    capture.page.keyboard.type("A ring")
    before = capture.points
    assert before[-1][0] is None
    capture.page.wait_for_timeout(300)
    assert capture.points == before
    capture.look((0.6, 0.5, 0.3))
    assert capture.points[-1][0] is not None


def test_nobody_looks_who_does_nothing_for_long(show: Callable[..., Capture]):
    capture = show()
    capture.look((0.5, 0.5, 0))
    until(capture.page, "document.querySelector('pydeper-capture').draft.points.at(-1)[0] === null")
    _, _, seconds = capture.points[-1]
    assert 5 <= seconds - capture.points[0][2] < 10


def test_points_outside_of_the_picture_are_interruptions(show: Callable[..., Capture]):
    capture = show()
    capture.look((0.5, 0.5, 0.2), (1.2, 0.5, 0.2), (0.5, 0.5, 0.2))
    points = capture.points
    assert all(0 <= x <= 1 and 0 <= y <= 1 for x, y, _ in points if x is not None)
    assert any(x is None for x, _, _ in points)
    assert [t for *_, t in points] == sorted(t for *_, t in points)


# --- time, drafts, errors


def test_the_time_to_look_is_limited(show: Callable[..., Capture]):
    capture = show("time-limit=1")
    capture.look((0.5, 0.5, 0.2))
    capture.part(".stage.over").wait_for()
    assert "still write" in capture.part(".message").text_content()
    before = capture.points
    capture.look((0.2, 0.2, 0.3))
    assert capture.points == before
    assert finished(capture)["description"]


def test_a_draft_goes_on_where_it_was(show: Callable[..., Capture]):
    first = show()
    first.look((0.2, 0.2, 0.5))
    first.write("Half of")
    draft = first.page.evaluate("document.querySelector('pydeper-capture').draft")
    assert events(first, "draft")
    second = show()
    second.page.evaluate("draft => { document.querySelector('pydeper-capture').draft = draft; }", draft)
    second.look((0.8, 0.8, 0.5))
    recording = finished(second, "Half of it, and the rest.")
    assert recording["attempt"] == draft["attempt"]
    times = [t for *_, t in recording["points"]]
    assert times == sorted(times)
    assert [(round(x, 1), round(y, 1)) for x, y, s in stops(recording["points"]) if s > 0.3] == [(0.2, 0.2), (0.8, 0.8)]


def test_an_empty_description_is_said_at_its_field(show: Callable[..., Capture]):
    capture = show()
    capture.write("   ")
    capture.done()
    assert "few words" in capture.part("[role=alert]").text_content()
    assert capture.part("textarea").get_attribute("aria-invalid") == "true"
    assert events(capture, "done") == []
    assert finished(capture)["description"] == "A ring of light."


def test_a_picture_that_cannot_be_loaded_is_said(show: Callable[..., Capture]):
    capture = show()
    capture.page.evaluate("document.querySelector('pydeper-capture').src = '/none.png'")
    until(capture.page, "events.some(([kind]) => kind === 'pydeper-error')")
    assert capture.part(".message").text_content() == "The picture cannot be loaded."
    capture.page.evaluate("document.querySelector('pydeper-capture').src = '/large.png'")
    until(capture.page, "events.at(-1)[1].width === 4000 || events.some(([, d]) => d.width === 4000)")
    assert capture.part(".message").text_content() == ""


def test_the_description_is_dictated_where_the_browser_can(context: BrowserContext, show: Callable[..., Capture]):
    page = context.new_page()
    page.add_init_script(
        """window.webkitSpeechRecognition = class {
          start() { window.heard = this; }
          stop() { this.onend(); }
          say(text) {
            const result = Object.assign([{ transcript: text }], { isFinal: true });
            this.onresult({ results: [result], resultIndex: 0 });
          }
        }; delete window.SpeechRecognition;"""
    )
    capture = show("dictation", page=page)
    assert "send the sound to its maker" in capture.part(".note").text_content()
    capture.write("Written,")
    capture.part(".dictate").click()
    assert capture.part(".dictate").text_content() == "Stop dictating"
    page.evaluate("heard.say('and spoken.')")
    assert capture.part("textarea").input_value() == "Written, and spoken."
    page.evaluate("heard.onerror({ error: 'network' })")
    assert "network" in capture.part("[role=alert]").text_content()
    capture.part(".dictate").click()
    assert capture.part(".dictate").text_content() == "Dictate"


# --- replay, texts, access


def test_a_replay_shows_the_stops_in_pictures_and_in_words(show: Callable[..., Capture]):
    capture = show()
    fixations = [{"box": [0.1, 0.1, 0.3, 0.3], "duration": 0.4}, {"box": [0.6, 0.5, 0.8, 0.7], "duration": 1.6}]
    points = [[0.2, 0.2, 0], [None, None, 0.4], [0.7, 0.6, 0.5]]
    capture.page.evaluate(
        "([points, fixations]) => document.querySelector('pydeper-capture').replay(points, fixations)",
        [points, fixations],
    )
    radii = [float(circle.get_attribute("r")) for circle in capture.part("svg circle").all()]
    assert radii[1] == pytest.approx(2 * radii[0], rel=0.01)  # four times as long, four times the area
    assert capture.part("li").all_text_contents() == [
        "20 % from the left, 20 % from the top, for 0.4 s",
        "70 % from the left, 60 % from the top, for 1.6 s",
    ]
    before = capture.points
    capture.look((0.5, 0.5, 0.2))
    assert capture.points == before
    capture.page.evaluate("document.querySelector('pydeper-capture').reset()")
    assert capture.part("svg").count() == 0
    capture.look((0.5, 0.5, 0.2))
    assert capture.points


def test_texts_can_be_translated(show: Callable[..., Capture]):
    capture = show()
    texts = json.loads((PAGE_FILES / "texts.json").read_text("utf-8"))
    assert capture.page.evaluate("document.querySelector('pydeper-capture').texts") == texts["en"]["widget"]
    capture.page.evaluate(
        "texts => { document.querySelector('pydeper-capture').texts = texts; }", texts["de"]["widget"]
    )
    assert capture.part("button.done").text_content() == "Fertig"
    assert capture.part(".stage").get_attribute("aria-label") == "Bild zum Beschreiben"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100])
def test_everybody_can_use_it(show: Callable[..., Capture], context: BrowserContext, scheme: Any, width: int):
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    capture = show("time-limit=60", page=page)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    capture.page.evaluate("document.querySelector('pydeper-capture').replay([], [{box: [0, 0, 1, 1], duration: 1}])")
    assert violations(page) == []
