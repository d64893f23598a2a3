"""Deciding whose a sample is, on synthetic vectors; and the classical answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydeper import Fixation, Sample, Trajectory
from pydeper.errors import InvalidArgumentError, InvalidSampleError
from training.data.encoded import EncodedDataset
from training.people.centroids import Whitening, centroid_scores
from training.people.classical import gaze_log_probabilities, gaze_statistics, text_log_probabilities
from training.people.identification import (
    Evidence,
    added,
    fitted_weights,
    fused,
    groups_of,
    identify,
    image_folds,
    subset,
    together,
)

PEOPLE = 6


def noisy_people(noise: float, each: int = 8, seed: int = 0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(PEOPLE, 10))
    subjects = np.repeat(np.arange(PEOPLE), each)
    return centres[subjects] + noise * rng.normal(size=(len(subjects), 10)), subjects


def test_centroids_find_people_and_means_of_several_samples_find_them_better():
    support, subjects = noisy_people(1.5, seed=1)
    rng = np.random.default_rng(2)
    centres = np.random.default_rng(1).normal(size=(PEOPLE, 10))
    queries = centres[subjects] + 1.5 * rng.normal(size=support.shape)
    evidence = Evidence(queries, lambda means: centroid_scores(means, support, subjects, PEOPLE))
    one, five = (identify(evidence, subjects, groups_of(subjects, size)).mean() for size in (1, 5))
    assert 2 / PEOPLE < one < five


def test_centroid_scores_are_cosines_to_the_mean_of_unit_vectors():
    support = np.array([[2.0, 0.0], [0.0, 0.5], [-1.0, 0.0]])
    scores = centroid_scores(np.array([[3.0, 3.0]]), support, np.array([0, 0, 1]), 2)
    np.testing.assert_allclose(scores, [[1.0, -np.sqrt(0.5)]])


@settings(max_examples=30)
@given(st.floats(0.1, 10), st.integers(0, 5))
def test_the_length_of_vectors_says_nothing_to_the_centroid_rule(scale, seed):
    support, subjects = noisy_people(1.0, seed=seed)
    expected = centroid_scores(support, support, subjects, PEOPLE)
    np.testing.assert_allclose(centroid_scores(scale * support, support, subjects, PEOPLE), expected, atol=1e-12)
    np.testing.assert_allclose(centroid_scores(support, scale * support, subjects, PEOPLE), expected, atol=1e-12)


def test_nobody_may_lack_support():
    with pytest.raises(InvalidArgumentError, match=r"people \[1\] have no support"):
        centroid_scores(np.ones((1, 2)), np.ones((1, 2)), np.array([0]), 2)


@settings(max_examples=30)
@given(st.integers(0, 5), st.floats(0.01, 0.99))
def test_whitening_makes_a_persons_samples_spread_alike_in_all_directions(seed, shrinkage):
    rng = np.random.default_rng(seed)
    vectors, subjects = noisy_people(1.0, each=40, seed=seed)
    vectors = vectors * np.geomspace(0.1, 10, 10) + rng.normal(size=10)
    within = np.concatenate([vectors[subjects == who] - vectors[subjects == who].mean(0) for who in range(PEOPLE)])
    covariance = within.T @ within / len(within)
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / 10 * np.eye(10)
    whitening = Whitening.fit(vectors, subjects, shrinkage)
    np.testing.assert_allclose(whitening.matrix.T @ shrunk @ whitening.matrix, np.eye(10), atol=1e-8)
    np.testing.assert_allclose(whitening(vectors).mean(0), 0, atol=1e-8)


def test_whitening_finds_people_whom_one_loud_direction_hides():
    rng = np.random.default_rng(2)
    quiet, subjects = noisy_people(0.5, seed=1)
    centres = np.random.default_rng(1).normal(size=(PEOPLE, 10))[subjects]
    loud = 100 * np.eye(10)[3]
    support = quiet + rng.normal(size=(len(quiet), 1)) * loud
    queries = centres + 0.5 * rng.normal(size=quiet.shape) + rng.normal(size=(len(quiet), 1)) * loud
    whitening = Whitening.fit(support, subjects, 1e-6)
    plain, whitened = (
        identify(Evidence(q, lambda m, s=s: centroid_scores(m, s, subjects, PEOPLE)), subjects, groups_of(subjects, 1))
        for q, s in ((queries, support), (whitening(queries), whitening(support)))
    )
    assert plain.mean() < 0.5 < 0.9 < whitened.mean()


@pytest.mark.parametrize(
    ("shrinkage", "spread", "complaint"), [(0.0, 1.0, "in \\(0, 1\\]"), (0.1, 0.0, "nobody's samples differ")]
)
def test_whitening_needs_samples_that_differ(shrinkage, spread, complaint):
    vectors, subjects = noisy_people(spread)
    with pytest.raises(InvalidArgumentError, match=complaint):
        Whitening.fit(vectors, subjects, shrinkage)


def test_ties_share_the_credit():
    scores = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    subjects = np.array([0, 1, 2, 1])
    credits = identify(Evidence(scores, lambda means: means), subjects, groups_of(subjects, 1))
    assert sorted(credits) == [0.0, 0.5, 0.5, 1.0]


def test_scores_that_say_nothing_are_chance():
    subjects = np.repeat(np.arange(PEOPLE), 4)
    flat = Evidence(np.zeros((len(subjects), PEOPLE)), lambda means: means)
    assert identify(flat, subjects, groups_of(subjects, 2)).mean() == pytest.approx(1 / PEOPLE)


def test_a_group_is_decided_on_its_mean():
    log_probabilities = np.log([[0.6, 0.4], [0.6, 0.4], [0.01, 0.99]])
    subjects = np.array([1, 1, 1])
    evidence = Evidence(log_probabilities, lambda means: means)
    assert identify(evidence, subjects, groups_of(subjects, 1)).tolist() == [0, 0, 1]
    assert identify(evidence, subjects, groups_of(subjects, 3)).tolist() == [1]


@settings(max_examples=30)
@given(st.lists(st.floats(-2, 2), min_size=1, max_size=4), st.integers(0, 9))
def test_added_evidence_is_decided_by_the_sum_of_its_scores(weights, seed):
    rng = np.random.default_rng(seed)
    parts = []
    for _ in weights:
        vectors, map_ = rng.normal(size=(5, width := int(rng.integers(1, 6)))), rng.normal(size=(width, PEOPLE))
        parts.append(Evidence(vectors, lambda means, map_=map_: np.tanh(means @ map_)))
    whole = added(parts, weights)
    means = [part.vectors[[0, 3]].mean(axis=0, keepdims=True) for part in parts]
    expected = sum(weight * part.decide(mean) for weight, part, mean in zip(weights, parts, means, strict=True))
    np.testing.assert_allclose(whole.decide(whole.vectors[[0, 3]].mean(axis=0, keepdims=True)), expected)


def test_trainings_that_agree_decide_as_one_and_two_outvote_a_third():
    right, wrong = (Evidence(np.eye(2)[[who]], lambda means: means) for who in (1, 0))
    subjects, single = np.array([1]), groups_of(np.array([1]), 1)
    for trainings, credit in (([right], 1), ([right] * 3, 1), ([right, wrong, right], 1), ([right, wrong, wrong], 0)):
        whole = together([dict.fromkeys(("text + gaze", "text", "gaze"), one) for one in trainings])
        assert [identify(evidence, subjects, single).tolist() for evidence in whole.values()] == [[credit]] * 3


def test_fusing_finds_people_whom_no_view_finds_alone():
    """Of four people, words tell two pairs apart, and gaze who is who within a pair."""
    subjects = np.tile(np.arange(4), 5)
    words, gaze = (subjects // 2)[:, None] == np.arange(4) // 2, (subjects % 2)[:, None] == np.arange(4) % 2
    scores = {"text + gaze": np.zeros((20, 4)), "text": words.astype(float), "gaze": gaze.astype(float)}
    views = {view: Evidence(array, lambda means: means) for view, array in scores.items()}
    single = groups_of(subjects, 1)
    assert [identify(views[view], subjects, single).mean() for view in scores] == [0.25, 0.5, 0.5]
    whole = fused(views, fitted_weights(scores, subjects))
    assert identify(whole["text + gaze"], subjects, single).mean() == 1
    assert (whole["text"], whole["gaze"]) == (views["text"], views["gaze"])


@settings(max_examples=30)
@given(st.lists(st.integers(3, 9), min_size=1, max_size=4), st.integers(1, 3))
def test_groups_are_of_one_person_and_without_repeats(counts, size):
    subjects = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    groups = groups_of(subjects, size, most=12)
    assert all(len(set(rows.tolist())) == size and len(set(subjects[rows])) == 1 for rows in groups)
    if size == 1:
        assert len(groups) == len(subjects)
    assert {int(subjects[rows[0]]) for rows in groups} == set(range(len(counts)))


def test_five_of_six_samples_make_six_groups_and_who_has_fewer_makes_one():
    groups = groups_of(np.array([0] * 6 + [1] * 4), 5)
    assert [len(rows) for rows in groups] == [5] * 6 + [4]


@settings(max_examples=30)
@given(st.integers(2, 7), st.integers(0, 3))
def test_folds_hold_out_every_photograph_once(folds, seed):
    image_of = np.random.default_rng(seed).permutation(np.repeat(np.arange(7), 5))
    masks = image_folds(image_of, folds, seed)
    assert (np.sum(masks, axis=0) == 1).all()
    for mask in masks:
        assert not set(image_of[mask]) & set(image_of[~mask])


@pytest.mark.parametrize("folds", [1, 4])
def test_folds_must_fit_the_photographs(folds):
    with pytest.raises(InvalidArgumentError, match="give 2 to 3"):
        image_folds(np.arange(3), folds)


def test_a_subset_keeps_the_numbers_of_people_and_images():
    data = EncodedDataset(
        samples=["a", "b", "c"],  # type: ignore[list-item] – never looked into
        origins=["sample a", "sample b", "sample c"],  # type: ignore[list-item] – never looked into
        image_of=np.array([0, 1, 1]),
        image_tokens=None,  # type: ignore[arg-type] – never looked into
        descriptions=["x", None, "z"],
        subject_of=np.array([2, 0, 2]),
        subjects=("ana", "ben", "cem"),
    )
    part = subset(data, np.array([False, True, True]))
    assert (part.samples, part.descriptions) == (["b", "c"], [None, "z"])
    assert part.origins == ["sample b", "sample c"]
    assert (part.image_of.tolist(), part.subject_of.tolist()) == ([1, 1], [0, 2])
    assert part.subjects == data.subjects


# --- classical answers


def trajectory(*durations: float, left: float = 0.1) -> Trajectory:
    return Trajectory(
        tuple(Fixation((left + 0.1 * i, 0.2, left + 0.1 * i + 0.1, 0.4), t) for i, t in enumerate(durations))
    )


def test_gaze_statistics_by_hand():
    numbers = gaze_statistics(trajectory(0.1, 0.3, 0.2))
    expected = [
        3,
        0.6,
        0.2,
        np.std([0.1, 0.3, 0.2]),
        0.2,
        0.1,
        0.3,
        0.1,
        0.2,
        0.25,
        0.3,
        0.1 * np.sqrt(2 / 3),
        0,
        0.1,
        0.1,
    ]
    np.testing.assert_allclose(numbers, expected, rtol=1e-5, atol=1e-7)


def test_one_fixation_has_no_steps():
    numbers = gaze_statistics(trajectory(0.4))
    assert numbers.shape == (15,)
    assert numbers[-2:].tolist() == [0, 0]


def people_of_habit() -> list[Sample]:
    """Three people with their own words and tempo, on images that are never opened."""
    image = np.zeros((2, 2, 3), np.uint8)
    habits = {"ana": ("a photo of", 0.1), "ben": ("Here we see", 0.5), "cem": ("LOOK:", 1.5)}
    things = ["dogs", "two cats", "a tree", "my car", "rain"]
    return [
        Sample(
            image,
            description=f"{opening} {thing}",
            trajectory=trajectory(tempo, tempo * 1.1, tempo * (1 + 0.05 * i)),
            subject=name,
        )
        for name, (opening, tempo) in habits.items()
        for i, thing in enumerate(things)
    ]


@pytest.mark.parametrize("classify", [lambda a, b: text_log_probabilities(a, b, 10.0), gaze_log_probabilities])
def test_classical_answers_know_people_of_habit(classify):
    pytest.importorskip("sklearn")
    samples = people_of_habit()
    scores = classify([s for i, s in enumerate(samples) if i % 5], samples[::5])
    assert scores.shape == (3, 3)
    assert scores.argmax(axis=1).tolist() == [0, 1, 2]  # people in sorted order
    assert (scores <= 0).all()


def test_classical_answers_need_what_they_compare():
    pytest.importorskip("sklearn")
    image = np.zeros((2, 2, 3), np.uint8)
    silent = Sample(image, trajectory=trajectory(0.1), subject="ana", source="file:3")
    blind = Sample(image, description="x", subject="ana", source="file:4")
    with pytest.raises(InvalidSampleError, match="file:3: description: missing"):
        text_log_probabilities([silent], [silent], 1.0)
    with pytest.raises(InvalidSampleError, match="file:4: trajectory: missing"):
        gaze_log_probabilities([blind], [blind])
