"""A bundle's tokenizer, as far as it can be trusted."""

import json

import pytest

from pydeper import BundleError
from pydeper.bundle.layout import BUILTIN
from pydeper.bundle.tokenizer import open_tokenizer


def tokenizer_file(folder, **changes):
    whole = json.loads((BUILTIN / "tiny" / "tokenizer.json").read_text(encoding="utf-8"))
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(whole | changes), encoding="utf-8")
    return path


def test_a_tokenizer_may_not_ask_for_padding_or_cut_texts(tmp_path):
    padding = {
        "strategy": {"Fixed": 2**40}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "x",
    }  # fmt: skip
    truncation = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    tokenizer = open_tokenizer(tokenizer_file(tmp_path, padding=padding, truncation=truncation))
    assert 1 < len(tokenizer.encode("a red circle", add_special_tokens=False).ids) < 20


def test_a_tokenizer_that_breaks_the_library_is_a_bundle_error(tmp_path, capfd):
    normalizer = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    for changes in (
        {"normalizer": normalizer},
        {"model": None},
        {"model": {"type": "BPE", "vocab": {}, "merges": [1]}},
    ):
        with pytest.raises(BundleError, match=r"tokenizer\.json: is not a tokenizer"):
            open_tokenizer(tokenizer_file(tmp_path, **changes))
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b"[" * 100_000)
    with pytest.raises(BundleError, match="is not a tokenizer"):
        open_tokenizer(path)
    with path.open("wb") as file:
        file.truncate(64 * 1024 * 1024 + 1)  # a hole: it takes no room on the disk
    with pytest.raises(BundleError, match="is larger than"):
        open_tokenizer(path)
