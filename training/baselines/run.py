"""`python -m training baseline NAME`: everybody's descriptions by one baseline, as a predictions file."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import attrs
import torch

from pydeper import Sample, read_samples
from training.baselines.captioner import CaptionerInputs
from training.baselines.csmn.captioner import csmn
from training.baselines.few_shot import FewShot
from training.baselines.lora_prompt_tuning import tune_with_lora
from training.baselines.mitr.captioner import mitr, mitr_fine_tuned
from training.baselines.predict import predict
from training.baselines.prompt_tuning import tune
from training.baselines.system import Describe, SoftTokens, System, by_prompts
from training.baselines.targets import Person, descriptions, people_of
from training.baselines.text_statistics import TextStatistics
from training.baselines.zero_shot import ZeroShot
from training.config import ConfigError, PromptTuningConfig, Stage2Config, TrainingConfig, shaping_settings_at
from training.distributed.process_group import training_device
from training.evaluation.predictions import References
from training.preparation.splits import TRAIN, VAL
from training.preparation.word_times import WordTimes
from training.runs.frozen_parts import FrozenParts, load_image_features, load_vlm
from training.vlm.steered_vlm import SteeredVLM


@attrs.frozen(eq=False)
class PromptInputs:
    """What a baseline that prompts the frozen VLM is made from.

    Attributes:
        vlm: The frozen VLM.
        style: The prompt's style.
        people: Their targets are predicted.
        others: Descriptions by people without targets, one list a person.
        folder: For what is trained.
        max_new_tokens: The most tokens of a description.
        max_description_tokens: Longer descriptions are cut in prompts.
        seed: Of draws and training.
        tuning: Settings of prompt tuning.
        bf16: Run the VLM under bfloat16 autocast where it is trained through.
        feature_cache: Folder that keeps the VLM's image features for all runs.
    """

    vlm: SteeredVLM
    style: str
    people: Sequence[Person]
    others: Sequence[Sequence[str]]
    folder: Path
    max_new_tokens: int
    max_description_tokens: int = 256
    seed: int = 0
    tuning: PromptTuningConfig | None = None
    bf16: bool = False
    feature_cache: str | None = None


def _few_shot(inputs: PromptInputs) -> System:
    return FewShot(
        inputs.vlm,
        inputs.style,
        max_new_tokens=inputs.max_new_tokens,
        max_description_tokens=inputs.max_description_tokens,
        seed=inputs.seed,
    )


def _prompt_tuning(inputs: PromptInputs) -> System:
    tuning, learned = _tuning(inputs), []
    # Apart, because a few support samples would hardly ever be drawn from among all training samples.
    for group, steps in ((True, tuning.steps), (False, tuning.unseen_steps)):
        if people := [person for person in inputs.people if person.seen == group]:
            config = attrs.evolve(tuning, steps=steps)
            folder = inputs.folder / ("seen" if group else "unseen")
            tokens = tune(
                inputs.vlm,
                inputs.style,
                people,
                config,
                inputs.seed,
                folder,
                bf16=inputs.bf16,
                feature_cache=inputs.feature_cache,
            )
            learned.append((people, tokens))
    everybody = [person for people, _ in learned for person in people]
    soft_tokens = torch.cat([tokens for _, tokens in learned])
    return SoftTokens(inputs.vlm, inputs.style, everybody, soft_tokens)


def _lora_prompt_tuning(inputs: PromptInputs) -> System:
    return tune_with_lora(
        inputs.vlm,
        inputs.style,
        inputs.people,
        _tuning(inputs),
        inputs.seed,
        inputs.folder,
        bf16=inputs.bf16,
        feature_cache=inputs.feature_cache,
    )


def _tuning(inputs: PromptInputs) -> PromptTuningConfig:
    if inputs.tuning is None:
        raise ConfigError("prompt_tuning: missing; add a table [prompt_tuning] with its settings, at least steps")
    return inputs.tuning


LORA = "prompt-tuning with LoRA"
PROMPTS: Mapping[str, Callable[[PromptInputs], System]] = {
    "zero-shot": lambda inputs: ZeroShot(inputs.vlm, inputs.style),
    "few-shot": _few_shot,
    "text-statistics": lambda inputs: TextStatistics(inputs.vlm, inputs.style, inputs.people, inputs.others),
    "prompt-tuning": _prompt_tuning,
    LORA: _lora_prompt_tuning,
}
"""Baselines that prompt the VLM, which is frozen but for LoRA."""
CSMN, MITR, FINE_TUNED = "CSMN", "MITR", "MITR, fine-tuned per person"
CAPTIONERS: Mapping[str, Callable[[CaptionerInputs], Describe]] = {CSMN: csmn, MITR: mitr, FINE_TUNED: mitr_fine_tuned}
"""Baselines whose own network writes the texts."""
BASELINES = (*PROMPTS, *CAPTIONERS)
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "prompt-tuning": ("prompt_tuning",),
    LORA: ("prompt_tuning", "prompt_tuning.lora"),
    CSMN: ("csmn",),
    MITR: ("mitr",),
    FINE_TUNED: ("mitr",),
}
"""The tables of the configuration that a trained baseline has its settings in."""


@attrs.frozen(eq=False)
class DescriptionTask:
    """The targets of everybody in a samples file, and the frozen parts, each loaded when a system first needs it.

    Attributes:
        config: Names both.
        people: Their targets are predicted.
        samples: All samples of the file.
    """

    config: TrainingConfig
    people: Sequence[Person]
    samples: Sequence[Sample]

    @classmethod
    def load(cls, config: TrainingConfig, dataset: str | None = None) -> "DescriptionTask":
        """Reads the samples.

        Args:
            config: Names them; for a system that prompts the VLM, `stage2` has the prompt's style and the precision.
            dataset: What to call the data set; see `References.of`.
        """
        samples = read_samples(config.samples, check_durations=config.check_durations)
        people = people_of(samples, References.of(Path(config.samples), samples, dataset))
        return cls(config, people, samples)

    @cached_property
    def parts(self) -> FrozenParts:
        """The frozen parts that read samples."""
        return FrozenParts.load(self.config)

    @cached_property
    def vlm(self) -> SteeredVLM:
        """The frozen VLM, on the device where it is to run."""
        return load_vlm(self.config, self.parts.tokenizer, self.device).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where networks are to run."""
        return training_device()

    @property
    def stage2(self) -> Stage2Config:
        """The settings that say how the VLM is prompted and run.

        Raises:
            ConfigError: There are none.
        """
        if self.config.stage2 is None:
            raise ConfigError("stage2: missing; it says which style the prompts are of, and the VLM's precision")
        return self.config.stage2

    def described(self, split: str) -> list[Sample]:
        """The samples of a split that have a description."""
        return [sample for sample in self.samples if sample.split == split and sample.description is not None]

    def vlm_settings(self, max_new_tokens: int) -> dict[str, object]:
        """What predictions of the VLM depend on, beside the prompts."""
        return {
            "vlm": self.config.vlm,
            "style": self.stage2.style,
            "bf16": self.stage2.bf16,
            "max_description_tokens": self.config.max_description_tokens,
            "max_new_tokens": max_new_tokens,
            **self._settings(),
        }

    def captioner_settings(self) -> dict[str, object]:
        """What predictions of a captioner depend on, beside its own settings."""
        return {"image_encoder": self.config.image_encoder, **self._settings()}

    def _settings(self) -> dict[str, object]:
        return {
            "image size": self.config.image_size,
            "seed": self.config.seed,
            "samples": hashlib.sha256(Path(self.config.samples).read_bytes()).hexdigest(),
        }


def run(name: str, task: DescriptionTask, folder: Path, *, max_new_tokens: int = 512, batch_size: int = 16) -> Path:
    """Predicts all targets of a samples file by one baseline.

    Args:
        name: One of `BASELINES`.
        task: The targets, and the frozen parts.
        folder: Gets `predictions.jsonl`, and what is trained.
        max_new_tokens: The most tokens of a description by the VLM (paper: 512); captioners have limits of their own.
        batch_size: Targets at a time.

    Returns:
        The predictions file.

    Raises:
        ConfigError: Settings are missing.
        InvalidArgumentError: The folder holds other predictions.
    """
    prompting: list[System] = []

    def build() -> Describe:
        if name in CAPTIONERS:
            return CAPTIONERS[name](_captioner_inputs(task, folder))
        prompting.append(PROMPTS[name](_prompt_inputs(task, folder, max_new_tokens)))
        return by_prompts(prompting[0], max_new_tokens)

    settings = task.captioner_settings() if name in CAPTIONERS else task.vlm_settings(max_new_tokens)
    own = {section: shaping_settings_at(task.config, section) for section in SECTIONS.get(name, ())}
    settings |= {section: found for section, found in own.items() if found is not None}
    path = predict(name, build, task.people, folder, settings, batch_size=batch_size)
    for system in prompting:
        if isinstance(system, FewShot) and system.shortened:
            print(f"{name}: {system.shortened} prompts held fewer samples than asked for: the VLM's context is full")
    return path


def _captioner_inputs(task: DescriptionTask, folder: Path) -> CaptionerInputs:
    return CaptionerInputs(
        people=task.people,
        training=task.described(TRAIN),
        validation=task.described(VAL),
        load_image_features=lambda images: load_image_features(task.config, images, task.device),
        folder=folder,
        seed=task.config.seed,
        csmn=task.config.csmn,
        mitr=task.config.mitr,
        utterances_of=WordTimes.beside(Path(task.config.samples)).of,
        device=task.device,
    )


def _prompt_inputs(task: DescriptionTask, folder: Path, max_new_tokens: int) -> PromptInputs:
    return PromptInputs(
        vlm=task.vlm,
        style=task.stage2.style,
        people=task.people,
        others=descriptions_by_others(task.people, task.samples),
        folder=folder,
        max_new_tokens=max_new_tokens,
        max_description_tokens=task.config.max_description_tokens,
        seed=task.config.seed,
        tuning=task.config.prompt_tuning,
        bf16=task.stage2.bf16,
        feature_cache=task.config.feature_cache,
    )


def descriptions_by_others(people: Sequence[Person], samples: Sequence[Sample]) -> list[list[str]]:
    """Training descriptions by people who have no targets, one list a person."""
    described = {person.name for person in people}
    texts: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.split == TRAIN and sample.description is not None and sample.subject not in described:
            texts.setdefault(str(sample.subject), []).append(sample)
    return [descriptions(own) for own in texts.values()]
