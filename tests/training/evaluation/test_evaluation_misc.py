import json
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu

from pydeper.errors import InvalidArgumentError
from training.evaluation.bootstrap import Interval, bootstrap_mean, bootstrap_statistic, bootstrap_sums
from training.evaluation.probes import probe_trait, probe_traits, transfer_probe
from training.evaluation.report import format_table, write_report
from training.metrics.captions import bleu4, bleu4_from_statistics, bleu_statistics
from training.metrics.human_consistency import human_consistency
from training.metrics.viewing import viewing_agreement

# Human consistency


def test_human_consistency_equals_the_plain_definition():
    images = ["x", "x", "x", "y", "y", "z"]
    subjects = ["ana", "ben", "cem", "ana", "ben", "ana"]
    texts = [
        "a red dog on grass",
        "a red dog on a mat",
        "one dog",
        "the big house is old",
        "the big house is new",
        "sea",
    ]
    by_image = {}
    for left, right in permutations(range(6), 2):
        if images[left] == images[right]:
            score = Bleu(4).compute_score({0: [texts[right]]}, {0: [texts[left]]}, verbose=0)[0][3]
            by_image.setdefault(images[left], []).append(score)
    result = human_consistency(images, subjects, texts, tokenizer="words")
    assert result.images == ("x", "y")
    np.testing.assert_allclose(result.by_image, [np.mean(by_image["x"]), np.mean(by_image["y"])])
    assert result.mean == pytest.approx(result.by_image.mean())


def test_human_consistency_does_not_compare_a_person_with_themselves():
    text = "the same five words here"
    result = human_consistency(["x"] * 3, ["ana", "ana", "ben"], [text, text, "nothing alike"], tokenizer="words")
    assert result.mean < 1e-3


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from(["", "a dog", "a dog on a mat"]))))
def test_human_consistency_is_a_share_that_the_order_of_rows_does_not_change(rows):
    rows = [*rows, (9, 0, "a red dog on a mat"), (9, 1, "a dog on a mat")]
    there, back = (
        human_consistency(*map(list, zip(*order, strict=True)), tokenizer="split") for order in (rows, rows[::-1])
    )
    assert 0 <= there.mean <= 1 + 1e-12
    assert there.mean == pytest.approx(back.mean)
    assert set(there.images) == set(back.images)


@pytest.mark.parametrize(
    ("images", "subjects", "texts", "message"),
    [
        (["x"], ["ana"], ["a"], "described by 2 people"),
        (["x", "x"], ["ana", "ana"], ["a", "b"], "described by 2 people"),
        (["x"], ["ana", "ben"], ["a", "b"], "images has 1"),
        ([], [], [], "empty"),
        (["x", "x"], ["ana", "ben"], ["a", None], "NoneType"),
    ],
)
def test_human_consistency_refuses_bad_input(images, subjects, texts, message):
    with pytest.raises(InvalidArgumentError, match=message):
        human_consistency(images, subjects, texts, tokenizer="words")


# Viewing

mentions = st.lists(st.integers(0, 5), max_size=7)


@given(st.lists(st.tuples(mentions, mentions), min_size=1, max_size=5))
def test_viewing_equals_the_plain_definition(pairs):
    first_right = first_asked = right = asked = 0
    for candidate, reference in pairs:
        first_asked += bool(reference)
        first_right += bool(candidate and reference and candidate[0] == reference[0])
        for a in range(6):
            for b in range(a):
                if all(mention in side for mention in (a, b) for side in (candidate, reference)):
                    asked += 1
                    in_candidate = candidate.index(a) < candidate.index(b)
                    right += in_candidate == (reference.index(a) < reference.index(b))
    result = viewing_agreement(*map(list, zip(*pairs, strict=True)))
    assert result.first == (first_right / first_asked if first_asked else None)
    assert result.order == (right / asked if asked else None)
    assert (result.orders_asked.sum(), result.first_asked.sum()) == (asked, first_asked)


def test_viewing_worked_example():
    result = viewing_agreement([["dog", "tree", "car"], [], ["sun"]], [["dog", "car", "tree"], ["sun"], []])
    assert result.first_right.tolist() == [1, 0, 0]
    assert result.first_asked.tolist() == [1, 1, 0]
    assert (result.first, result.order) == (1 / 2, 2 / 3)
    assert result.orders_asked.tolist() == [3, 0, 0]


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [([[1]], [], "candidates has 1"), ([], [], "empty"), (["dog"], [["dog"]], "not a sequence of mentions")],
)
def test_viewing_refuses_bad_input(candidates, references, message):
    with pytest.raises(InvalidArgumentError, match=message):
        viewing_agreement(candidates, references)


# Bootstrap


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        people = np.repeat(np.arange(40), 5)
        values = generator.normal(size=40)[people] + 0.1 * generator.normal(size=200)
        interval = bootstrap_mean(values, people, resamples=400, level=0.9, seed=trial)
        covered += interval.low <= 0 <= interval.high
    assert 0.8 <= covered / 200 <= 0.97  # rows as clusters would cover some 0.55


def test_rows_of_a_cluster_stay_together():
    values, people = [1.0] * 50 + [0.0] * 50, ["ana"] * 50 + ["ben"] * 50
    interval = bootstrap_mean(values, people)
    assert (interval.estimate, interval.low, interval.high) == (0.5, 0.0, 1.0)
    alone = bootstrap_mean(values, range(100))
    assert 0.35 < alone.low < 0.45 < 0.55 < alone.high < 0.65


def test_the_mean_and_any_statistic_agree():
    generator = np.random.default_rng(3)
    right, asked, people = generator.integers(0, 3, 60), generator.integers(2, 9, 60), generator.integers(0, 9, 60)
    share = bootstrap_mean(right, people, weights=asked, resamples=300, seed=7)
    people = people.tolist()
    slow = bootstrap_statistic(lambda rows: right[rows].sum() / asked[rows].sum(), people, resamples=300, seed=7)
    assert share.estimate == pytest.approx(right.sum() / asked.sum())
    assert (share.estimate, share.low, share.high) == pytest.approx((slow.estimate, slow.low, slow.high))


def test_corpus_bleu_has_an_interval():
    references = [f"a red dog number {i} runs in the big park" for i in range(12)]
    candidates = [text.replace("red", "blue") if i % 3 else text for i, text in enumerate(references)]
    statistics = bleu_statistics(candidates, references, tokenizer="words")
    interval = bootstrap_statistic(lambda rows: bleu4_from_statistics(statistics[rows].sum(axis=0)), range(12))
    assert interval.estimate == bleu4(candidates, references, tokenizer="words").corpus
    assert interval.low < interval.estimate < interval.high


def test_sums_give_the_interval_of_the_statistic_they_belong_to():
    generator = np.random.default_rng(4)
    statistics = generator.integers(0, 9, size=(40, 10)).astype(float)
    people = generator.integers(0, 6, 40).tolist()
    fast = bootstrap_sums(statistics, bleu4_from_statistics, people, resamples=200, seed=5)
    slow = bootstrap_statistic(
        lambda rows: float(bleu4_from_statistics(statistics[rows].sum(axis=0))), people, resamples=200, seed=5
    )
    assert (fast.estimate, fast.low, fast.high) == pytest.approx((slow.estimate, slow.low, slow.high))
    with pytest.raises(InvalidArgumentError, match="clusters has 3"):
        bootstrap_sums(statistics, bleu4_from_statistics, [1, 2, 3])
    with pytest.raises(InvalidArgumentError, match="1 clusters"):
        bootstrap_sums(statistics, bleu4_from_statistics, [1] * 40)


def test_clusters_without_weight_say_nothing():
    interval = bootstrap_mean([1, 0, 0, 0], ["a", "b", "c", "d"], weights=[1, 1, 0, 0])
    assert interval.estimate == 0.5
    assert 0 <= interval.low <= interval.high <= 1


@pytest.mark.parametrize(
    ("values", "clusters", "options", "message"),
    [
        ([1, 2], ["a", "a"], {}, "1 clusters"),
        ([1, 2], ["a"], {}, "clusters has 1"),
        ([1, float("nan")], ["a", "b"], {}, "finite"),
        ([[1], [2]], ["a", "b"], {}, "shape"),
        ([1, 2], ["a", "b"], {"weights": [0, 0]}, "not all 0"),
        ([1, 2], ["a", "b"], {"weights": [1, -1]}, "at least 0"),
        ([1, 2], ["a", "b"], {"weights": [1, 0]}, "only where the value is 0"),
        ([1, 0], ["a", "b"], {"weights": [1, 0]}, "any weight"),
        ([1, 2], ["a", "b"], {"resamples": 0}, "resamples is 0"),
        ([1, 2], ["a", "b"], {"level": 1.0}, r"level 1\.0"),
        ([], [], {}, "empty"),
    ],
)
def test_bootstrap_refuses_bad_input(values, clusters, options, message):
    with pytest.raises(InvalidArgumentError, match=message):
        bootstrap_mean(values, clusters, **options)


# Probes


def persona_vectors(signal, num_people=60, per_person=3, num_values=3, seed=0):
    generator = np.random.default_rng(seed)
    people = np.repeat(np.arange(num_people), per_person)
    values = people % num_values
    vectors = generator.normal(size=(num_people, 8))[people] + 0.1 * generator.normal(size=(len(people), 8))
    vectors[:, 0] += signal * values
    return vectors, people.tolist(), [f"value{value}" for value in values]


def test_a_trait_in_the_vectors_is_found():
    probe = probe_trait(*persona_vectors(signal=8))
    assert probe.accuracy.estimate > 0.95
    assert probe.accuracy.low <= probe.accuracy.estimate <= probe.accuracy.high
    assert (probe.chance, probe.num_values, probe.num_people) == (pytest.approx(1 / 3), 3, 60)
    assert probe.folds.shape == (5,)
    assert probe.spread == pytest.approx(probe.folds.std())


def test_people_are_never_on_both_sides():
    # Every person is a tight cluster and the trait is nowhere: whoever had seen the person would be right always.
    probe = probe_trait(*persona_vectors(signal=0, per_person=6))
    assert probe.accuracy.estimate < 0.6


def test_the_same_seed_gives_the_same_figures():
    vectors, people, values = persona_vectors(signal=1)
    first, second = (probe_trait(vectors, people, values, seed=3) for _ in range(2))
    assert first.accuracy == second.accuracy
    np.testing.assert_array_equal(first.folds, second.folds)


def test_many_traits_and_rare_values():
    vectors, people, values = persona_vectors(signal=8)
    rare = ["rare" if person == 0 else value for person, value in zip(people, values, strict=True)]
    probes = probe_traits(vectors, people, {"style": values, "rare": rare})
    assert list(probes) == ["style", "rare"]
    assert probes["rare"].num_values == 4
    with pytest.raises(InvalidArgumentError, match="trait 'same': people by value"):
        probe_traits(vectors, people, {"style": values, "same": ["one"] * len(people)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": np.zeros(12)}, "shape"),
        ({"vectors": np.full((12, 2), np.nan)}, "finite"),
        ({"people": [0, 1]}, "people has 2"),
        ({"values": ["a"] * 12}, "at least 2 values"),
        ({"values": ["a"] * 11 + ["b"]}, "at least 2 values"),
        ({"people": [0] * 12}, "person 0 has the values"),
        ({"num_folds": 13}, "num_folds is 13"),
        ({"num_folds": 1}, "num_folds is 1"),
        ({"regularisation": 0.0}, "regularisation is 0"),
    ],
)
def test_probes_refuse_bad_input(change, message):
    good = {"vectors": np.eye(12), "people": list(range(12)), "values": ["a", "b"] * 6, "num_folds": 3}
    probe_trait(**good)
    with pytest.raises(InvalidArgumentError, match=message):
        probe_trait(**{**good, **change})


def test_a_trait_transfers_to_other_people():
    vectors, people, values = persona_vectors(signal=8)
    seen, asked = slice(0, 120), slice(120, None)
    accuracy = transfer_probe(vectors[seen], values[seen], vectors[asked], values[asked], people=people[asked])
    assert accuracy.estimate > 0.8  # chance is a third
    assert accuracy.low <= accuracy.estimate <= accuracy.high
    unknown = transfer_probe(vectors[seen], values[seen], vectors[asked], ["new"] * 60, people=people[asked])
    assert unknown.estimate == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"asked_vectors": np.zeros((4, 3))}, "widths must be equal"),
        ({"fitted_values": ["a"] * 4}, "at least 2 values"),
        ({"fitted_values": ["a", "b"]}, "fitted_values has 2"),
        ({"people": [1, 2]}, "people has 2"),
        ({"people": [1] * 4}, "1 clusters"),
        ({"regularisation": -1.0}, "regularisation is -1"),
    ],
)
def test_transfer_refuses_bad_input(change, message):
    good = {
        "fitted_vectors": np.eye(4),
        "fitted_values": ["a", "b"] * 2,
        "asked_vectors": np.eye(4),
        "asked_values": ["a", "b"] * 2,
        "people": [1, 2, 3, 4],
    }
    assert transfer_probe(**good).estimate == 1
    with pytest.raises(InvalidArgumentError, match=message):
        transfer_probe(**{**good, **change})


# Report

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
