import numpy as np
import pytest

from pydeper.errors import InvalidArgumentError
from training.evaluation.bootstrap import bootstrap_mean, bootstrap_statistic, bootstrap_sums
from training.metrics.bleu import bleu4, bleu4_from_statistics, bleu_statistics


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
