"""MITR from people's samples to predictions: the base for everybody, and fine-tuned for each person."""

import attrs
import pytest
import torch
from safetensors.torch import load_file

from pydeper.errors import PydeperError
from pydeper.readers.utterances import Utterance
from tests.support.training_run import log_of
from tests.training.baselines.mitr.small_mitr import SMALL, people_inputs, small_network
from tests.training.baselines.mitr.test_training import random_examples
from training.baselines.mitr.captioner import mitr, mitr_fine_tuned
from training.baselines.mitr.fine_tuning import fine_tune, fine_tuning_settings, folder_name
from training.config import ConfigError, MITRConfig
from training.errors import TrainingError
from training.loop.checkpoints import CHECKPOINT
from training.loop.logs import EVALUATIONS


def targets_of(inputs):
    return [(person, target) for person in inputs.people for target in person.targets]


def test_the_base_describes_an_image_in_the_same_words_for_everybody(tmp_path):
    inputs = people_inputs(tmp_path, attrs.evolve(SMALL, steps=60, learning_rate=0.01))
    texts = mitr(inputs)(targets_of(inputs))
    assert len(texts) == 6
    assert texts[:2] == texts[2:4] == texts[4:]
    words = {word for sample in inputs.training for word in str(sample.description).replace(".", " . ").split()}
    assert {word for text in texts for word in text.split()} <= {word.strip(",!") for word in words}
    assert max(len(text.split()) for text in texts) <= SMALL.max_words


def test_everybody_is_fine_tuned_from_the_same_base(tmp_path):
    config = attrs.evolve(SMALL, fine_tuning_rate=0.02, fine_tuning_epochs=30, unseen_steps=30, epochs_without_val=30)
    inputs = people_inputs(tmp_path, config)
    texts = mitr_fine_tuned(inputs)(targets_of(inputs))
    assert texts[:2] != texts[2:4]
    assert texts[4:] not in (texts[:2], texts[2:4])
    folders = {name: inputs.folder / "people" / folder_name(name) for name in ("ana", "ben", "cem")}
    assert [(folder / CHECKPOINT).exists() for folder in folders.values()] == [False, False, True]
    assert log_of(folders["ana"], EVALUATIONS)
    assert not (folders["ben"] / EVALUATIONS).exists()
    # The base that was fine-tuned is the one that describes for everybody, to the last bit.
    mitr(people_inputs(tmp_path, config, runs="base alone"))
    alone, shared = (load_file(tmp_path / run / "base" / CHECKPOINT) for run in ("base alone", "run"))
    assert all(torch.equal(alone[name], shared[name]) for name in alone.keys() | shared.keys())


def test_two_people_start_from_equal_weights_and_end_with_others(tmp_path):
    base, inputs = small_network(), people_inputs(tmp_path)
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    ana, ben = (
        fine_tune(base, person, SMALL, random_examples(4, seed), random_examples(0), 0, tmp_path)
        for seed, person in enumerate(inputs.people[:2])
    )
    assert all(torch.equal(weight, before[name]) for name, weight in base.state_dict().items())
    assert not torch.equal(ana.word_head.weight, ben.word_head.weight)
    assert not torch.equal(ana.word_head.weight, base.word_head.weight)


def test_an_interrupted_run_goes_on_with_the_person_it_was_at(tmp_path):
    inputs, targets = people_inputs(tmp_path), targets_of(people_inputs(tmp_path))
    whole = mitr_fine_tuned(inputs)(targets)
    parts = people_inputs(tmp_path, runs="parts")
    first = mitr_fine_tuned(parts)(targets[:3])
    log = parts.folder / "people" / folder_name("ben") / "log.jsonl"
    trained = log.read_bytes()
    assert first + mitr_fine_tuned(parts)(targets[3:]) == whole
    assert log.read_bytes() == trained


def test_a_base_can_be_shared_between_runs(tmp_path):
    inputs = people_inputs(tmp_path)
    expected = mitr_fine_tuned(inputs)(targets_of(inputs))
    shared = people_inputs(tmp_path, attrs.evolve(SMALL, base=str(inputs.folder / "base")), runs="other")
    assert mitr_fine_tuned(shared)(targets_of(shared)) == expected
    assert not (shared.folder / "base").exists()
    with pytest.raises(TrainingError, match="made with another configuration"):
        mitr(people_inputs(tmp_path, attrs.evolve(shared.mitr, num_heads=4), runs="third"))


def test_the_times_of_words_change_what_is_learned(tmp_path):
    spread = people_inputs(tmp_path)
    timed = attrs.evolve(
        people_inputs(tmp_path, runs="timed"),
        utterances_of=lambda sample: (Utterance(str(sample.description), 0.0, 1.0, (0.0, 0.9, 0.1, 1.0)),),
    )
    for inputs in (spread, timed):
        mitr(inputs)
    one, other = (log_of(inputs.folder / "base")[0] for inputs in (spread, timed))
    assert one["trace"] != other["trace"]


@pytest.mark.parametrize(
    ("samples", "seen", "validate", "expected"),
    [
        (61, True, True, (30, 30, 3)),
        (61, True, False, (9, 30, 0)),
        (7, True, True, (10, 7, 1)),
        (5, False, False, (50, 5, 0)),
        (5, False, True, (50, 5, 0)),
    ],
)
def test_how_long_a_person_is_learned(samples, seen, validate, expected):
    settings = fine_tuning_settings(MITRConfig(accumulation=2), samples, seen=seen, validate=validate)
    assert (settings.steps, settings.batch_size, settings.evaluate_every) == expected
    assert (settings.learning_rate, settings.final_rate, settings.accumulation) == (5e-5, 1.0, 1)


def test_names_of_people_make_folders_of_their_own():
    names = ["ana", "../ana", "ana/", "", "a" * 500, "Ana"]
    folders = {folder_name(name) for name in names}
    assert len(folders) == len(names)
    assert all(folder.isalnum() and len(folder) == 16 for folder in folders)


def test_what_cannot_be_trained_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="hidden_size: 20 must be even, and a multiple of num_heads = 8"):
        MITRConfig(hidden_size=20)
    with pytest.raises(TrainingError, match=r"no word occurs 99 times .* lower mitr.min_count"):
        mitr(people_inputs(tmp_path, attrs.evolve(SMALL, min_count=99)))
    (tmp_path / "images/4.png").write_bytes(b"broken")
    with pytest.raises(PydeperError, match=r"4\.png"):
        mitr(people_inputs(tmp_path))
