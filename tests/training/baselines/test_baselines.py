"""The baselines: what each puts before the frozen VLM, and the predictions file that all of them write."""

import json

import attrs
import numpy as np
import pytest
import torch

import pydeper
from pydeper.errors import InvalidArgumentError, InvalidSampleError
from tests.support.small_vlm import PROMPTS
from tests.training.baselines.conftest import NEW, STYLE, WORDS
from training.baselines.few_shot import FewShot
from training.baselines.predict import predict
from training.baselines.prompt_tuning import PromptTuningTask, tune
from training.baselines.run import descriptions_by_others
from training.baselines.system import SoftTokens, by_prompts
from training.baselines.targets import Person, people_of
from training.baselines.text_statistics import TextStatistics, telling_words
from training.baselines.zero_shot import ZeroShot
from training.config import OptimisationConfig
from training.evaluation.predictions import References, read_predictions
from training.preparation.splits import SUPPORT, TRAIN
from training.vlm.generation import SeenImage, see
from training.vlm.steered_vlm import SteeredVLM


def first_image(steered: SteeredVLM, person: Person) -> SeenImage:
    return see(steered, [person.targets[0].sample.open_image()])[0]


def text_of(steered: SteeredVLM, ids) -> str:
    return steered.tokenizer.decode(list(ids), skip_special_tokens=False).replace("<|image_pad|>", "")


# --- people


def test_seen_people_are_known_from_train_and_unseen_ones_from_support(people):
    assert [(person.name, person.seen, len(person.known), len(person.targets)) for person in people] == [
        ("ana", True, 6, 2),
        ("ben", True, 6, 2),
        ("cem", False, 6, 2),
    ]
    assert {sample.split for person in people for sample in person.known} == {TRAIN, SUPPORT}
    assert [person.targets[0].pending.dataset for person in people] == ["drawn, seen", "drawn, seen", "drawn, unseen"]
    assert people[0].targets[0].pending.image == "6.png"


def test_who_has_a_target_must_be_known(samples_file):
    samples = pydeper.read_samples(samples_file)
    references = References.of(samples_file, samples)
    without = [sample for sample in samples if (sample.subject, sample.split) != ("ben", TRAIN)]
    with pytest.raises(InvalidSampleError, match="subject 'ben' has no described sample of split 'train'"):
        people_of(without, references)
    with pytest.raises(InvalidSampleError, match="no described sample of split 'test' or 'query'"):
        people_of([sample for sample in samples if sample.split == TRAIN], references)


def test_people_without_targets_give_their_words_for_comparison(samples_file, people):
    samples = pydeper.read_samples(samples_file)
    assert descriptions_by_others(people, samples) == []
    assert [len(texts) for texts in descriptions_by_others(people[1:], samples)] == [6]


# --- prompts


def test_zero_shot_is_the_plain_prompt_for_everybody(steered, people):
    image = first_image(steered, people[0])
    prompts = [ZeroShot(steered, STYLE).prompt(person, image) for person in people]
    assert len({tuple(prompt.ids) for prompt in prompts}) == 1
    assert text_of(steered, prompts[0].ids) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|><|vision_end|>"
        "Write a description of this photo<|im_end|>\n<|im_start|>assistant\n"
    )


def test_few_shot_is_a_conversation_of_the_persons_own_samples(steered, people):
    cem = people[2]
    system = FewShot(steered, STYLE, max_new_tokens=NEW, shots=2, seed=3)
    image = first_image(steered, cem)
    prompt = system.prompt(cem, image)
    assert len(prompt.images) == 3
    assert prompt.images[-1] is image
    turns = text_of(steered, prompt.ids).split("<|im_start|>")[1:]
    assert [turn.split("\n")[0] for turn in turns] == ["system", *["user", "assistant"] * 3]
    answers = [turn.removeprefix("assistant\n").removesuffix("<|im_end|>\n") for turn in turns[2::2]]
    own = [str(sample.description) for sample in cem.known]
    assert answers[-1] == ""
    assert [own.index(answer) for answer in answers[:-1]] == sorted(own.index(answer) for answer in answers[:-1])
    assert system.prompt(cem, image).ids == prompt.ids  # the same shots for every question
    # The shown images are those of the shown descriptions.
    for answer, shown in zip(answers, prompt.images[:-1], strict=False):
        expected = see(steered, [cem.known[own.index(answer)].open_image()])[0]
        torch.testing.assert_close(shown.features, expected.features)
    assert not system.shortened


def test_few_shot_drops_what_the_context_does_not_hold_and_counts_it(steered, people):
    short = attrs.evolve(steered.config, max_positions=200)
    narrow = SteeredVLM(steered.model, steered.tokenizer, short, PROMPTS)
    system = FewShot(narrow, STYLE, max_new_tokens=NEW)
    image = first_image(narrow, people[0])
    prompt = system.prompt(people[0], image)
    whole = FewShot(steered, STYLE, max_new_tokens=NEW).prompt(people[0], image)
    assert len(whole.images) == 6
    assert 1 <= len(prompt.images) < 6
    assert len(prompt.ids) + NEW <= 200
    assert system.shortened == 1
    assert prompt.ids[-20:] == whole.ids[-20:]


def test_few_shot_cuts_long_descriptions(steered, people):
    image = first_image(steered, people[0])
    long, cut = (
        FewShot(steered, STYLE, max_new_tokens=NEW, max_description_tokens=limit).prompt(people[0], image)
        for limit in (256, 2)
    )
    assert len(cut.ids) < len(long.ids)


def test_the_telling_words_are_those_that_others_do_not_use(steered, people):
    pytest.importorskip("sklearn")
    assert telling_words([["a a a cat", "a"], ["a dog", "Cat"], ["don't"]], 2) == [
        ["a", "cat"],
        ["dog", "a"],
        ["don't"],
    ]
    system = TextStatistics(steered, STYLE, people, words=3)
    assert "red" in system.words["ana"]
    assert system.words["cem"][0] == "blue"
    prompt = system.prompt(people[2], first_image(steered, people[2]))
    words = ", ".join(system.words["cem"])
    assert f"in the style of somebody who often says: {words}<|im_end|>" in text_of(steered, prompt.ids)
    assert prompt.soft_token is None


def test_words_of_others_count_for_the_document_frequency(steered, people):
    pytest.importorskip("sklearn")
    alone = TextStatistics(steered, STYLE, people[:1], words=2).words["ana"]
    beside = TextStatistics(steered, STYLE, people[:1], [["a red square and a square"]], words=2).words["ana"]
    assert "a" in alone
    assert beside[0] == "circle"


def test_a_soft_token_takes_the_personas_place(steered, people):
    soft_tokens = torch.randn(3, steered.config.hidden_size)
    system = SoftTokens(steered, STYLE, people, soft_tokens)
    prompt = system.prompt(people[1], first_image(steered, people[1]))
    assert torch.equal(prompt.soft_token, soft_tokens[1])
    assert "in the style of <subj><|im_end|>" in text_of(steered, prompt.ids)


# --- prompt tuning


def test_tuning_lowers_the_loss_of_peoples_own_words_and_goes_on_where_it_stopped(steered, people, tmp_path):
    config = OptimisationConfig(steps=30, batch_size=6, learning_rate=0.05, log_every=1, weight_decay=0.0)
    tokens = tune(steered, STYLE, people, config, 0, tmp_path)
    assert tokens.shape == (3, steered.config.hidden_size)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 1
    assert torch.equal(tune(steered, STYLE, people, config, 0, tmp_path), tokens)
    assert not any(parameter.requires_grad for parameter in steered.parameters())


def test_a_persons_soft_token_learns_from_that_persons_samples_alone(steered, people):
    config = OptimisationConfig(steps=1, batch_size=18)
    task = PromptTuningTask(steered, STYLE, people, config, 0)
    alone = PromptTuningTask(steered, STYLE, people[1:2], attrs.evolve(config, batch_size=6), 0)
    with torch.no_grad():
        alone.state.weight.copy_(task.state.weight[1:2])
    for each in (task, alone):
        each.losses(0, 0)["loss"].backward()
    together, own = task.state.weight.grad[1], alone.state.weight.grad[0]
    assert torch.cosine_similarity(together, own, dim=0) > 0.9999
    with pytest.raises(AssertionError):
        torch.testing.assert_close(task.state.weight.grad[0], task.state.weight.grad[1])


# --- predictions


def describe(steered, people, folder, system=None, **changes):
    def build():
        return by_prompts(system or ZeroShot(steered, STYLE), NEW)

    return predict("zero-shot", build, people, folder, {"seed": 0, **changes}, batch_size=2)


def test_predictions_are_greedy_and_evaluation_reads_them(steered, people, samples_file, tmp_path):
    path = describe(steered, people, tmp_path)
    rows = read_predictions(path, References.of(samples_file, pydeper.read_samples(samples_file), "drawn"))
    assert [(row.subject, row.image, row.system) for row in rows] == [
        (name, image, "zero-shot") for name in WORDS for image in ("6.png", "7.png")
    ]
    assert {row.dataset for row in rows} == {"drawn, seen", "drawn, unseen"}
    for row in rows[:2]:
        image = pydeper.Sample(samples_file.parent / row.image, "x").open_image()
        expected = steered.tokenizer.decode(steered.greedy(image, None, STYLE, NEW)).strip()
        assert row.prediction == expected
        assert row.reference == f"{WORDS['ana']} {row.image[0]}"


def test_an_interrupted_run_goes_on_with_the_next_line(steered, people, tmp_path):
    whole = describe(steered, people, tmp_path / "whole").read_bytes()

    class Stopping(ZeroShot):
        prompts = 0

        def prompt(self, person, image):
            self.prompts += 1
            if self.prompts > 4:
                raise KeyboardInterrupt
            return super().prompt(person, image)

    parts = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        describe(steered, people, parts, Stopping(steered, STYLE))
    partial = parts / "predictions.partial.jsonl"
    assert partial.read_bytes() == b"".join(whole.splitlines(keepends=True)[:4])
    with partial.open("ab") as file:
        file.write(b'{"image": "cut sh')
    assert describe(steered, people, parts).read_bytes() == whole
    assert not partial.exists()
    assert describe(steered, people, parts, Stopping(steered, STYLE)).read_bytes() == whole  # nothing left to ask


def test_predictions_of_other_settings_or_samples_are_refused(steered, people, tmp_path):
    path = describe(steered, people, tmp_path)
    with pytest.raises(InvalidArgumentError, match=r"were made with seed 0, not 1"):
        describe(steered, people, tmp_path, seed=1)
    with pytest.raises(InvalidArgumentError, match=r"predictions.jsonl:1: is not what this run would write"):
        describe(steered, people[::-1], tmp_path)
    with pytest.raises(InvalidArgumentError, match="has 6 lines, not 4"):
        describe(steered, people[:2], tmp_path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    with pytest.raises(InvalidArgumentError, match="has 3 lines, not 6"):
        describe(steered, people, tmp_path)
