"""LoRA prompt tuning: what is learned, for whom, and that the frozen VLM stays as it is."""

import copy
import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.training.baselines.conftest import NEW, STYLE
from training.baselines.lora_prompt_tuning import LoRATask, tune_with_lora, with_lora
from training.baselines.prompt_tuning import PromptTuningTask
from training.baselines.system import SoftTokens, by_prompts
from training.baselines.targets import Person
from training.config import LoRAConfig, PromptTuningConfig
from training.errors import TrainingError
from training.loop.checkpoints import CHECKPOINT
from training.vlm.generation import see
from training.vlm.steered_vlm import SteeredVLM

pytest.importorskip("peft")

LORA = LoRAConfig(rank=2, alpha=4.0, learning_rate=0.02)
CONFIG = PromptTuningConfig(
    steps=20, unseen_steps=3, batch_size=6, learning_rate=0.05, log_every=1, weight_decay=0.0, lora=LORA
)
SHORT = attrs.evolve(CONFIG, steps=2)


def tune(steered: SteeredVLM, people: list[Person], folder: Path, config: PromptTuningConfig = SHORT) -> SoftTokens:
    return tune_with_lora(steered, STYLE, people, config, 0, folder)


def texts(system: SoftTokens, people: list[Person]) -> list[str]:
    return by_prompts(system, NEW)([(person, target) for person in people for target in person.targets])


def soft_token(system: SoftTokens, person: Person) -> torch.Tensor:
    image = see(system.vlm, [person.targets[0].sample.open_image()])[0]
    return system.prompt(person, image).soft_token


def task(steered: SteeredVLM, people: list[Person], **lora: Any) -> LoRATask:
    config = attrs.evolve(CONFIG, lora=attrs.evolve(LORA, **lora))
    return LoRATask(*with_lora(steered, config.lora, 0), STYLE, people, config, 0)


def test_every_query_and_value_projection_of_the_language_model_has_layers_and_nothing_else_has(steered):
    adapted, layers = with_lora(steered, LORA, 0)
    assert len(layers) == 2 * len(steered.decoder_layers)
    assert {tuple(layer["A"].weight.shape) for layer in layers} == {(LORA.rank, 64)}
    changed = {name for name, _ in adapted.model.named_modules() if name.endswith("lora_A")}
    assert changed == {
        f"model.language_model.layers.{number}.self_attn.{projection}.lora_A"
        for number in range(len(steered.decoder_layers))
        for projection in ("q_proj", "v_proj")
    }


def test_untrained_layers_change_nothing(steered, people):
    """B is 0, so the loss over whole prompts is that over cached prefixes."""
    seen = people[:2]
    plain = PromptTuningTask(steered, STYLE, seen, CONFIG, 0)
    with torch.no_grad():
        expected, found = (each.losses(3, 0)["loss"] for each in (plain, task(steered, seen)))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_layers_and_soft_tokens_get_gradients_with_and_without_checkpointing(steered, people, accumulation):
    gradients = []
    for checkpointing in (True, False):
        learned = task(steered, people[:2], checkpointing=checkpointing)
        with torch.no_grad():
            for layer in learned.state["lora"]:
                layer["B"].weight.fill_(0.01)
        for micro_batch in range(accumulation):
            learned.losses(0, micro_batch)["loss"].backward()
        gradients.append({name: parameter.grad for name, parameter in learned.state.named_parameters()})
    assert all(gradient.abs().sum() > 0 for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


def test_training_lowers_the_loss_and_a_finished_one_is_not_repeated(steered, people, tmp_path):
    system = tune(steered, people, tmp_path, CONFIG)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "seen/log.jsonl").read_text().splitlines()]
    assert len(losses) == CONFIG.steps
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 1
    assert len((tmp_path / "unseen/log.jsonl").read_text().splitlines()) == CONFIG.unseen_steps
    before = (tmp_path / "seen" / CHECKPOINT).read_bytes()
    again = tune(steered, people, tmp_path, CONFIG)
    assert (tmp_path / "seen" / CHECKPOINT).read_bytes() == before
    assert all(torch.equal(soft_token(again, person), soft_token(system, person)) for person in people)
    assert texts(again, people) == texts(system, people)


def test_the_frozen_vlm_stays_as_it_is(steered, people, tmp_path):
    image = people[0].targets[0].sample.open_image()
    weights = {name: tensor.clone() for name, tensor in steered.model.state_dict().items()}
    modules = [(name, type(module)) for name, module in steered.model.named_modules()]
    expected = steered.greedy(image, None, STYLE, NEW)
    system = tune(steered, people, tmp_path, attrs.evolve(CONFIG, steps=5))
    texts(system, people)
    assert [(name, type(module)) for name, module in steered.model.named_modules()] == modules
    assert all(torch.equal(steered.model.state_dict()[name], tensor) for name, tensor in weights.items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in steered.parameters())
    assert not steered.model.training
    assert steered.greedy(image, None, STYLE, NEW) == expected
    # No second copy of the weights: the adapted VLM holds the same tensors, and those of LoRA.
    own = {id(tensor) for tensor in steered.parameters()}
    added = [tensor for tensor in system.vlm.parameters() if id(tensor) not in own]
    assert sum(tensor.numel() for tensor in added) < 0.1 * sum(tensor.numel() for tensor in steered.parameters())


def test_a_vlm_in_bfloat16_is_tuned_by_layers_in_float32(steered, people, tmp_path):
    half = copy.deepcopy(steered).to(torch.bfloat16)
    system = tune_with_lora(half, STYLE, people, attrs.evolve(CONFIG, steps=8), 0, tmp_path, bf16=True)
    state = load_file(tmp_path / "seen" / CHECKPOINT)
    assert {tensor.dtype for name, tensor in state.items() if name.startswith("state.")} == {torch.float32}
    losses = [json.loads(line)["loss"] for line in (tmp_path / "seen/log.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    assert len(texts(system, people)) == 6


def test_unseen_people_change_nothing_for_seen_ones(steered, people, tmp_path):
    everybody, alone = tune(steered, people, tmp_path / "all"), tune(steered, people[:2], tmp_path / "seen-alone")
    first, second = (load_file(tmp_path / folder / "seen" / CHECKPOINT) for folder in ("all", "seen-alone"))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert texts(everybody, people[:2]) == texts(alone, people[:2])
    # The unseen person's state is a soft token, and no LoRA layer.
    state = [name for name in load_file(tmp_path / "all/unseen" / CHECKPOINT) if name.startswith("state.")]
    assert state == ["state.weight"]
    assert not (tmp_path / "seen-alone/unseen").exists()


def test_somebody_must_have_been_seen(steered, people, tmp_path):
    with pytest.raises(TrainingError, match="the LoRA layers are learned from people seen in training"):
        tune(steered, people[2:], tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", [{"rank": 3}, {"alpha": 2.0}, {"learning_rate": 0.1}])
def test_a_checkpoint_of_other_layers_is_refused(steered, people, tmp_path, change):
    tune(steered, people[:2], tmp_path)
    other = attrs.evolve(SHORT, lora=attrs.evolve(LORA, **change))
    with pytest.raises(TrainingError, match=r"made with another configuration, seed or samples \(task was"):
        tune(steered, people[:2], tmp_path, other)
