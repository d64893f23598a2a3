"""How smoothly the capture page runs: `python -m benchmarks.capture [--seconds 60] [--report FOLDER]`.

A pointer moves over pictures in a real Chromium. For the widget and for two other ways to draw the same viewport, the
frame times; for the widget, also the gaps between the points that it records. All ways take turns in one browser,
on the same picture, with the same movements. Chromium has no GPU here, so times on a user's machine are shorter.

- *widget*: `<pydeper-capture>`: the picture is drawn once, blurred and plain; per frame, a small window moves.
- *canvas*: blurred and plain picture are drawn again, in every frame, into one canvas.
- *CSS mask*: the plain picture lies over the blurred one, with a mask whose centre moves.
"""

import argparse
import io
import itertools
import math
import os
import shutil
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image

from benchmarks.measuring.command import report_command
from pydeper.console import write_any_text
from pydeper.speed.machine import cpu
from training.evaluation.report import format_table, write_report

SIDES = (1000, 4000)
WAYS = ("widget", "canvas", "CSS mask")
SHOWN = 900  # CSS pixels, the picture's width in every way

PAGE = """<!doctype html><meta charset="utf-8"><title>capture</title>
<style>body {{ margin: 0; width: {shown}px }} #stage {{ position: relative; width: {shown}px; height: {height}px }}
#stage > * {{ position: absolute; inset: 0; width: 100%; height: 100% }} .blurred {{ filter: blur(14px) }}
.masked {{ mask: radial-gradient(circle 80px at var(--x, 50%) var(--y, 50%), #000 70%, transparent) }}</style>
<div id="stage"></div><script type="module">
const way = {way!r}, source = {source!r}, stage = document.getElementById("stage");
const frames = [];
let x = 0, y = 0, drawFrame = () => {{}};
addEventListener("pointermove", (event) => {{ x = event.clientX; y = event.clientY; }});
async function picture() {{
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}}
const ways = {{
  async widget() {{
    await import("/pydeper-capture.js");
    const widget = document.createElement("pydeper-capture");
    widget.addEventListener("pydeper-draft", (event) => {{ window.draft = event.detail; }});
    const started = new Promise((resolve) => widget.addEventListener("pydeper-start", resolve, {{ once: true }}));
    widget.src = source;
    stage.replaceWith(widget);
    widget.start?.();
    await started;
    window.widget = widget;
  }},
  async canvas() {{
    const image = await picture(), canvas = stage.appendChild(document.createElement("canvas"));
    canvas.width = {shown}; canvas.height = {height};
    const context = canvas.getContext("2d");
    drawFrame = () => {{
      context.filter = "blur(14px)";
      context.drawImage(image, 0, 0, canvas.width, canvas.height);
      context.filter = "none";
      context.save(); context.beginPath(); context.arc(x, y, 80, 0, 7); context.clip();
      context.drawImage(image, 0, 0, canvas.width, canvas.height);
      context.restore();
    }};
  }},
  async "CSS mask"() {{
    const blurred = await picture(), plain = blurred.cloneNode();
    blurred.className = "blurred"; plain.className = "masked";
    stage.append(blurred, plain);
    drawFrame = () => {{ plain.style.setProperty("--x", `${{x}}px`); plain.style.setProperty("--y", `${{y}}px`); }};
  }},
}};
await ways[way]();
requestAnimationFrame(function frame(now) {{
  frames.push(now);
  drawFrame();
  requestAnimationFrame(frame);
}});
window.frames_ = frames;
window.ready = true;
</script>
"""


def main() -> None:
    """Runs the benchmark."""
    write_any_text()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="for each way and picture (default: %(default)s)")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS, help="default: all")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="also write capture.json and .md there")
    options = parser.parse_args()
    results = {}
    with serve() as address, browser() as chromium:
        for side, way in itertools.product(SIDES, options.ways):
            print(f"{way}, {side} pixels: {options.seconds:g} s", flush=True)
            results[f"{way}, {side} pixels"] = measure(chromium, address, way, side, options.seconds)
        version = chromium.version
    print(format_table(results))
    if options.report:
        facts = {
            "command": report_command("benchmarks.capture", parser, options),
            "seconds for each row": options.seconds,
            "browser": f"Chromium {version.split('.')[0]}, headless, without a GPU",
            "machine": f"{cpu()}, {os.cpu_count()} cores",
            "load averages at the end": [round(load, 1) for load in os.getloadavg()],
        }
        write_report(options.report, "capture", results, title="How smoothly the capture page runs", facts=facts)


def measure(chromium: Any, address: str, way: str, side: int, seconds: float) -> dict[str, float]:
    """Moves the pointer over the picture for so long; milliseconds a frame and between points."""
    page = chromium.new_page(viewport={"width": 1000, "height": 1100})
    page.goto(f"{address}/page?way={way}&side={side}")
    page.wait_for_function("window.ready")
    page.mouse.move(300, 300)
    page.evaluate("frames_.length = 0")
    end = time.monotonic() + seconds
    for angle in itertools.count(step=0.05):
        page.mouse.move(300 + 200 * math.cos(angle), 300 + 150 * math.sin(1.7 * angle))
        if time.monotonic() > end:
            break
    steps = page.evaluate("frames_.slice(1).map((now, i) => now - frames_[i])")
    points = page.evaluate("window.widget ? window.widget.draft.points : []")
    page.close()
    result = {
        "frames a second": 1000 * len(steps) / sum(steps),
        "median, ms": statistics.median(steps),
        "99 %, ms": float(np.percentile(steps, 99)),
        "longest, ms": max(steps),
        "frames above 50 ms": float(sum(step > 50 for step in steps)),
    }
    if points:
        times = [point[2] for point in points if point[0] is not None]
        gaps = np.diff(times) * 1000
        result |= {"points": float(len(times)), "longest gap between points, ms": float(gaps.max())}
    return result


@contextmanager
def browser() -> Iterator[Any]:
    """A Chromium without a window."""
    from playwright.sync_api import sync_playwright

    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
        )
        try:
            yield chromium
        finally:
            chromium.close()


@contextmanager
def serve() -> Iterator[str]:
    """Serves the benchmark's pages, its pictures and the widget on loopback; yields the address."""
    pictures = {side: photograph(side) for side in SIDES}
    widget = files("pydeper").joinpath("capture/page/pydeper-capture.js").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            split = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(split.query).items()}
            match split.path:
                case "/page":
                    source = f"/picture?side={query['side']}"
                    page = PAGE.format(way=query["way"], source=source, shown=SHOWN, height=SHOWN * 3 // 4)
                    self._answer("text/html", page.encode())
                case "/picture":
                    self._answer("image/jpeg", pictures[int(query["side"])])
                case "/pydeper-capture.js":
                    self._answer("text/javascript", widget)
                case _:
                    self.send_error(404)

        def _answer(self, kind: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def photograph(width: int) -> bytes:
    """A JPEG with structure at every scale, 4:3."""
    generator = np.random.default_rng(0)
    height = width * 3 // 4
    picture = np.zeros((height, width, 3))
    for cells in (4, 16, 64, 256):
        noise = generator.uniform(0, 255, (cells * 3 // 4, cells, 3)).astype(np.uint8)
        picture += np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)) / 4
    file = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


if __name__ == "__main__":
    main()
