"""Reloads, kills, lost connections and second tabs: what somebody did on the capture page is still there."""

import json
import os
import signal
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Route

import pydeper
from tests.support.capture.browser import Watch, until
from tests.support.capture.command import command, make_pictures
from tests.support.capture.visitor import STOPS, Visitor, demo_pictures

pytestmark = pytest.mark.browser


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
