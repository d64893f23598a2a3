"""Lines of JSON that grow: whole after any interruption, and nobody else's."""

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydeper.bulk.journal import Description, Journal
from pydeper.errors import InvalidArgumentError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
descriptions = st.builds(Description, texts, st.none() | texts, texts)
LINES = [
    Description("a.png", "ana", "A dog."),
    Description("a.png", "ben", "日本\n\u2028"),
    Description("b.png", None, ""),
]


def written(path: Path, lines: list[Description]) -> bytes:
    journal = Journal(path)
    journal.append(lines)
    journal.close()
    return path.read_bytes()


def read(path: Path) -> list[Description]:
    journal = Journal(path)
    try:
        return [*journal.descriptions()]
    finally:
        journal.close()


@settings(max_examples=40)  # each of them waits for the disk
@given(st.lists(st.lists(descriptions, max_size=3), max_size=4))
def test_what_was_added_is_read_back_in_order(batches: list[list[Description]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for batch in batches:
            written(Path(folder, "out.jsonl"), batch)
        assert read(Path(folder, "out.jsonl")) == [line for batch in batches for line in batch]


@settings(max_examples=40)  # each of them waits for the disk
@given(st.lists(descriptions, min_size=1, max_size=4), st.data())
def test_a_file_cut_anywhere_keeps_its_whole_lines_and_is_gone_on_with(
    lines: list[Description], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "out.jsonl")
        whole = written(path, lines)
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])
        kept = lines[: whole[:cut].count(b"\n")]
        assert read(path) == kept
        assert written(path, lines[len(kept) :]) == whole


@settings(max_examples=40)  # each of them waits for the disk
@given(st.binary(min_size=1, max_size=30), st.booleans())
def test_what_a_lost_power_supply_leaves_after_the_last_line_is_removed(garbage: bytes, ends: bool) -> None:
    garbage = b"\x00" + garbage.replace(b"\n", b"") + (b"\n" if ends else b"")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "out.jsonl")
        whole = written(path, LINES)
        path.write_bytes(whole + garbage)
        assert read(path) == LINES
        assert path.read_bytes() == whole


def test_a_line_holds_image_persona_and_description(tmp_path: Path) -> None:
    content = written(tmp_path / "out.jsonl", LINES).decode()
    assert [json.loads(line) for line in content.split("\n")[:-1]] == [
        {"image": line.image, "persona": line.persona, "description": line.text} for line in LINES
    ]
    assert "日本" in content


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"image": "a.png"}\n', "line 1: is no description"),
        (b'{"image": "a", "persona": null, "description": "a"}\n[1]\n', "line 2: is no description"),
        (b'{"image": 3, "persona": null, "description": "a"}\n', "line 1: is no description"),
        (b'{"image": "a", "persona": null, "description": "a", "x": 1}\n', "line 1: is no description"),
        (b'oh\n{"image": "a", "persona": null, "description": "a"}\n', "line 1: is no JSON, and lines follow"),
    ],
)
def test_lines_of_others_are_an_error_and_stay(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "out.jsonl").write_bytes(content)
    with pytest.raises(InvalidArgumentError, match=complaint) as error:
        Journal(tmp_path / "out.jsonl")
    assert "delete" in str(error.value)
    assert (tmp_path / "out.jsonl").read_bytes() == content


@pytest.mark.skipif(os.name == "nt", reason="files are not locked there")
def test_two_processes_do_not_write_into_one_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "out.jsonl")
    with pytest.raises(InvalidArgumentError, match="another process is writing"):
        Journal(tmp_path / "out.jsonl")
    journal.close()
    Journal(tmp_path / "out.jsonl").close()


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on the size of files, which stands for a full disk")
def test_a_disk_that_is_full_is_named_and_loses_nothing(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "out.jsonl"
    before = written(path, LINES)
    journal = Journal(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*out.jsonl'"):
            journal.append(LINES)
        assert path.read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    # Once there is room, the same run goes on.
    journal.append(LINES)
    journal.close()
    assert read(path) == LINES * 2
