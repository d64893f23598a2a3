import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydeper.errors import InvalidArgumentError
from training.evaluation.bootstrap import Interval
from training.evaluation.report import format_table, write_report

RESULTS = {
    "zero-shot": {"BLEU-4": 0.024, "CIDEr": 0.004, "n": 120},
    "DEPER | ours": {"BLEU-4": Interval(0.312, 0.2984, 0.3311), "CIDEr": None, "CLS": 0.796},
}


def test_a_report_is_json_and_an_aligned_table(tmp_path):
    json_path, table_path = write_report(tmp_path / "new", "seen", RESULTS, title="Seen people", facts={"seed": 3})
    content = json.loads(json_path.read_text(encoding="utf-8"))
    assert content["results"]["DEPER | ours"]["BLEU-4"] == {
        "value": 0.312,
        "low": 0.2984,
        "high": 0.3311,
        "level": 0.95,
    }
    assert content["results"]["DEPER | ours"]["CIDEr"] == {"value": None}
    assert content["facts"] == {"seed": 3}
    assert table_path.read_text(encoding="utf-8") == (
        "# Seen people\n"
        "\n"
        "|               |               BLEU-4 | CIDEr |   n |   CLS |\n"
        "| ------------- | -------------------: | ----: | --: | ----: |\n"
        "| zero-shot     |                0.024 | 0.004 | 120 |     – |\n"
        "| DEPER \\| ours | 0.312 [0.298, 0.331] |     – |   – | 0.796 |\n"
        "\n"
        "- seed: 3\n"
    )


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.dictionaries(st.sampled_from(["a", "b", "c"]), st.floats(0, 10) | st.none() | st.integers(0, 9), min_size=1),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=50)
def test_every_table_is_rectangular(results):
    lines = format_table(results).split("\n")
    assert len(lines) == len(results) + 2
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(
    ("results", "facts", "message"),
    [
        ({}, {}, "empty"),
        ({"a": {}}, {}, "empty"),
        ({"a": {"b": float("nan")}}, {}, "'a', 'b': nan"),
        ({"a": {"b": Interval(0.1, 0.0, float("inf"))}}, {}, "inf"),
        ({"a": {"b": "0.3"}}, {}, "is a str"),
        ({"a": {"b": True}}, {}, "is a bool"),
        ({"a": {"b": 1}}, {"path": object()}, "plain JSON"),
    ],
)
def test_a_bad_report_leaves_the_old_one(tmp_path, results, facts, message):
    write_report(tmp_path, "seen", RESULTS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InvalidArgumentError, match=message):
        write_report(tmp_path, "seen", results, facts=facts)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
