import numpy as np
import pytest

from pydeper.errors import InvalidArgumentError
from training.evaluation.probes import probe_trait, probe_traits, transfer_probe


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
        ({"test_vectors": np.zeros((4, 3))}, "widths must be equal"),
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
        "test_vectors": np.eye(4),
        "test_values": ["a", "b"] * 2,
        "people": [1, 2, 3, 4],
    }
    assert transfer_probe(**good).estimate == 1
    with pytest.raises(InvalidArgumentError, match=message):
        transfer_probe(**{**good, **change})
