"""The example that speaks: whole sentences, in time, by a real synthesiser."""

import itertools
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
import wave
from collections.abc import Iterator
from pathlib import Path

import espeakng_loader
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.speak.speak import sentences, speak
from pydeper import DeperModel, demo_image
from tests.support.paths import ROOT

TEXT = "A red bus stops. Two people get off! Is that a dog? The sign says 3.5 km … then nothing"
SENTENCES = ["A red bus stops.", "Two people get off!", "Is that a dog?", "The sign says 3.5 km …", "then nothing"]


@given(st.lists(st.integers(0, len(TEXT)), max_size=30))
def test_sentences_do_not_depend_on_the_pieces(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(TEXT)]
    pieces = [TEXT[start:end] for start, end in itertools.pairwise(places)]
    assert list(sentences(pieces)) == SENTENCES


@pytest.mark.parametrize("pieces", [[], [""], [" ", "\n"]])
def test_no_text_is_no_sentence(pieces: list[str]) -> None:
    assert list(sentences(pieces)) == []


def test_the_next_sentence_is_computed_while_one_is_heard() -> None:
    second_is_there = threading.Event()

    def pieces() -> Iterator[str]:
        yield "One. "
        yield "Two. "
        second_is_there.set()
        yield "Three."

    said = []

    def say(sentence: str) -> None:
        assert second_is_there.wait(10)  # the voice has not finished the first, and the second is computed
        said.append(sentence)

    speak(pieces(), say)
    assert said == ["One.", "Two.", "Three."]


def test_what_was_computed_before_an_error_is_said() -> None:
    def pieces() -> Iterator[str]:
        yield "One. Two"
        raise RuntimeError("out of memory")

    said: list[str] = []
    with pytest.raises(RuntimeError, match="out of memory"):
        speak(pieces(), said.append)
    assert said == ["One."]


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """eSpeak NG from its wheel, where a system would have it, and a loudspeaker that keeps what it plays."""
    shutil.copyfile(espeakng_loader.get_library_path(), tmp_path / "libespeak-ng.so.1")
    player = tmp_path / "aplay"
    player.write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/heard.wav\n')
    player.chmod(player.stat().st_mode | stat.S_IXUSR)
    return {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(tmp_path),
        "ESPEAK_DATA_PATH": espeakng_loader.get_data_path(),
        "OMP_NUM_THREADS": "1",
    }


def run(machine: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The command that the README shows, without the persona."""
    shown = (ROOT / "examples" / "speak" / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^python (-m examples\.speak\.speak \S+ --model tiny) --persona", shown, flags=re.M)
    return subprocess.run(
        [sys.executable, *command.split()], cwd=ROOT, env=machine, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have a voice of their own")
def test_a_picture_is_heard(machine: dict[str, str], tmp_path: Path) -> None:
    done = run(machine)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == DeperModel.from_pretrained("tiny", threads=1).describe(demo_image())
    with wave.open(str(tmp_path / "heard.wav")) as heard:
        samples = np.frombuffer(heard.readframes(heard.getnframes()), np.int16)
        seconds = heard.getnframes() / heard.getframerate()
    assert seconds > 1
    assert np.abs(samples).max() > 1000  # not silence


def test_without_a_voice_the_message_says_what_to_install(machine: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "libespeak-ng.so.1").write_bytes(b"")
    done = run(machine)
    assert done.returncode == 2
    assert done.stderr.startswith("speak: there is no voice here")
    assert "apt install espeak-ng" in done.stderr
