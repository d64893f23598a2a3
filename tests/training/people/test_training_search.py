"""The search for a training: what is tried, in which order, and what a choice makes of a configuration."""

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import (
    IdentificationConfig,
    NoiseConfig,
    Stage1Config,
    TrainingConfig,
    load_config,
    structure_config,
)
from training.config.validators import ConfigError
from training.network import NetworkConfig
from training.paths import CONFIGS
from training.people.training_search import Schedule, search

LIMITS = IdentificationConfig(passes=3, most_passes=24, rate_factors=(0.5, 2.0), regularisation_factors=(0.5,))


def tried(landscape, limits=LIMITS, steps=lambda schedule: schedule.passes):
    return [trial.schedule for trial in search(landscape, limits, steps)]


def test_the_length_is_doubled_until_longer_is_worse():
    best_length = {3: 0.0, 6: 1.0, 12: 2.0, 24: 1.5}
    lengths = [s.passes for s in tried(lambda s: best_length[s.passes] - abs(s.rate - 1) - abs(s.regularisation - 1))]
    assert lengths == [3, 6, 12, 24, 12, 12, 12]
    assert tried(lambda s: -s.passes)[:3] == [Schedule(3), Schedule(6), Schedule(3, rate=0.5)]


def test_rate_and_regularisation_are_tried_at_the_best_of_what_was_before():
    schedules = tried(lambda s: (s.passes == 6) + s.rate - s.regularisation)
    assert schedules[-3:] == [Schedule(6, 0.5), Schedule(6, 2.0), Schedule(6, 2.0, 0.5)]


@settings(max_examples=50)
@given(st.dictionaries(st.integers(1, 96), st.floats(-9, 9)), st.integers(1, 200), st.integers(1, 96))
def test_no_training_is_longer_than_allowed_and_none_is_tried_twice(landscape, most_steps, most_passes):
    limits = attrs.evolve(LIMITS, passes=1, most_passes=most_passes, most_steps=most_steps)
    schedules = tried(lambda s: landscape.get(s.passes, s.passes), limits, lambda s: 7 * s.passes)
    assert len(set(schedules)) == len(schedules)
    assert {s.passes for s in schedules} <= {1, *(p for p in range(most_passes + 1) if 7 * p <= most_steps)}


def test_a_schedule_counts_passes_through_the_samples_it_is_given():
    config = load_config(TrainingConfig, CONFIGS / "scene_description.toml", ['samples="x"'])
    batch = config.stage1.batch_size
    assert [Schedule(3).steps(config, n) for n in (1, batch, 10 * batch, 10 * batch + 1)] == [1, 3, 30, 31]


def test_a_schedule_scales_the_configured_rate_and_regularisation():
    stage = Stage1Config(
        steps=9, learning_rate=1e-3, weight_decay=0.2, noise=NoiseConfig(words=0.6, boxes=0.02, durations=0.1)
    )
    config = TrainingConfig(name="x", samples="x", network=NetworkConfig(dropout=0.2), stage1=stage)
    applied = Schedule(2, rate=0.5, regularisation=2.0).applied(config, 64)
    assert (applied.stage1.steps, applied.stage1.learning_rate) == (2, 5e-4)
    assert (applied.network.dropout, applied.stage1.weight_decay) == (0.4, 0.4)
    assert applied.stage1.noise == NoiseConfig(words=0.9, boxes=0.04, durations=0.2)  # a chance stays below 1
    assert Schedule(9).applied(config, 64) == config


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"passes": 0}, "passes: must be > 0"),
        ({"passes": 9, "most_passes": 8}, "passes: 9 is more than most_passes = 8"),
        ({"rate_factors": [1, 0]}, "rate_factors: every factor must be > 0"),
        ({"regularisation_factors": [-1.0]}, "regularisation_factors: every factor must be > 0"),
        ({"patience": 3}, "unknown key patience"),
    ],
)
def test_impossible_searches_are_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        structure_config(IdentificationConfig, wrong, "a file")
