"""Texts, names and JSON from strangers: what is plain passes, everything else is refused or shown written out."""

import pytest

from pydeper import BundleError, PersonaError, PydeperError
from pydeper.untrusted import is_inner_path, is_plain_name, is_plain_text, legible, parse_json, shown


@pytest.mark.parametrize("text", ["ana", "Ána María", "عائشة", "李明", "नेहा", "👩‍🔬", "می‌خواهم", "a (b) [c] {d} 'e'"])
def test_names_of_all_scripts_are_plain(text):
    assert is_plain_text(text)
    assert legible(text) == text


@pytest.mark.parametrize(
    "text", ["\x1b[31m", "a\x00", "\x9b2J", "a\u202eb", "\u2066a", "a\u2028b", "\ud800", "a\rb", "\x07"]
)
def test_what_commands_a_terminal_is_written_out(text):
    assert not is_plain_text(text, breaks=True)
    safe = legible(text)
    assert is_plain_text(safe)
    assert "\\" in safe
    assert is_plain_text(str(PydeperError(text)))
    assert is_plain_text(shown(text))


def test_line_breaks_are_kept_where_they_are_plain():
    assert legible("a\n\tb\x1b") == "a\n\tb\\x1b"
    assert not is_plain_text("a\nb")
    assert is_plain_text("a\nb", breaks=True)


def test_what_is_shown_is_short_whatever_it_is():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    for value in ("x" * 10**6, 10**5000, list(range(10**5)), nested, {"k" * 1000: "v" * 1000}, b"b" * 10**6):
        assert len(shown(value)) <= 80


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        *[(name, True) for name in ("a", "a.onnx", "a.onnx_data_1", "scène.png", "com10.txt", "console", "my file")],
        *[(name, False) for name in ("", ".", "..", "a/b", "a\\b", "a:b", "con", "CON.txt", "lpt¹", "aux .x")],
        *[(name, False) for name in ("a.", "a ", "a\n", "a\x00", "a*", "x" * 256, "é" * 128, "e\u0301", "\ud800")],
    ],
)
def test_names_mean_the_same_file_everywhere(name, plain):
    assert is_plain_name(name) is plain
    assert is_inner_path(f"vlm/{name}") is plain or "/" in name


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\xff", "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b'{"a": 1, "b": 2, "a": 1}', "same key twice in one object: 'a'"),
        (b"[NaN]", "NaN is not"),
        (b"[-Infinity]", "-Infinity is not"),
        (b"[1e400]", "too large a number"),
        (b"1" * 5000, "5000 digits"),
        (b"[" * 65 + b"]" * 65, "more than 64 deep"),
        (b"[" * 10**6, "not valid JSON"),
        (b'["\\ud800"]', "surrogates"),
        (b'{"\\udfff": 1}', "surrogates"),
        (b"", "not valid JSON"),
    ],
)
def test_json_that_is_not_plain_is_refused(data, told):
    with pytest.raises(BundleError, match=told):
        parse_json(data, BundleError)
    with pytest.raises(PersonaError, match=told):  # which is a ValueError as well
        parse_json(data, PersonaError)


def test_plain_json_is_read():
    assert parse_json(b'{"a": [1, -2.5, null, true, "\\ud83d\\ude00"]}', BundleError) == {
        "a": [1, -2.5, None, True, "😀"]
    }
    assert parse_json(b"[" * 64 + b"]" * 64, BundleError)
