"""Bars while something takes long."""

import io
import sys

import pytest

from training.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal_and_nothing_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {}
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        bar = progress(range(3), "reading", "samples", position=0)
        bar.delay = 0  # the second has passed
        assert list(bar) == [0, 1, 2]
        bar.refresh()
        shown[stream.isatty()] = stream.getvalue()
    assert "reading: 100%" in shown[True]
    assert "3/3" in shown[True]
    assert shown[False] == ""
