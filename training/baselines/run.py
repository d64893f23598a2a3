"""`python -m training baseline NAME`: everybody's descriptions by one baseline, as a predictions file."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs
import torch

from pydeper import Sample, read_samples
from training.baselines.few_shot import FewShot
from training.baselines.predict import predict
from training.baselines.prompt_tuning import tune
from training.baselines.system import SoftTokens, System
from training.baselines.targets import Person, descriptions, people_of
from training.baselines.text_statistics import TextStatistics
from training.baselines.zero_shot import ZeroShot
from training.config import ConfigError, PromptTuningConfig, Stage2Config, TrainingConfig, shaping_settings
from training.evaluation.predictions import References
from training.preparation.splits import TRAIN
from training.runs.frozen_parts import FrozenParts, load_vlm
from training.vlm.steered_vlm import SteeredVLM


@attrs.frozen(eq=False)
class BaselineInputs:
    """What a baseline is made from.

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


def _few_shot(inputs: BaselineInputs) -> System:
    return FewShot(
        inputs.vlm,
        inputs.style,
        max_new_tokens=inputs.max_new_tokens,
        max_description_tokens=inputs.max_description_tokens,
        seed=inputs.seed,
    )


def _prompt_tuning(inputs: BaselineInputs) -> System:
    if inputs.tuning is None:
        raise ConfigError("prompt_tuning: missing; add a table [prompt_tuning] with its settings, at least steps")
    learned = []
    # Apart, because a few support samples would hardly ever be drawn from among all training samples.
    for group, steps in ((True, inputs.tuning.steps), (False, inputs.tuning.unseen_steps)):
        if people := [person for person in inputs.people if person.seen == group]:
            config = attrs.evolve(inputs.tuning, steps=steps)
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


BASELINES: Mapping[str, Callable[[BaselineInputs], System]] = {
    "zero-shot": lambda inputs: ZeroShot(inputs.vlm, inputs.style),
    "few-shot": _few_shot,
    "text-statistics": lambda inputs: TextStatistics(inputs.vlm, inputs.style, inputs.people, inputs.others),
    "prompt-tuning": _prompt_tuning,
}


@attrs.frozen(eq=False)
class DescriptionTask:
    """The targets of everybody in a samples file, and the frozen VLM that predicts them.

    Attributes:
        config: Names both.
        parts: The frozen parts that read samples.
        vlm: On the device where it is to run.
        people: Their targets are predicted.
        samples: All samples of the file.
    """

    config: TrainingConfig
    parts: FrozenParts
    vlm: SteeredVLM
    people: Sequence[Person]
    samples: Sequence[Sample]

    @classmethod
    def load(cls, config: TrainingConfig, dataset: str | None = None) -> "DescriptionTask":
        """Reads the samples, then loads the frozen parts.

        Args:
            config: `stage2` has the prompt's style and the VLM's precision.
            dataset: What to call the data set; see `References.of`.
        """
        if config.stage2 is None:
            raise ConfigError("stage2: missing; it says which style the prompts are of, and the VLM's precision")
        samples = read_samples(config.samples, check_durations=config.check_durations)
        people = people_of(samples, References.of(Path(config.samples), samples, dataset))
        parts = FrozenParts.load(config)
        vlm = load_vlm(config, parts.tokenizer).to("cuda" if torch.cuda.is_available() else "cpu")
        return cls(config, parts, vlm, people, samples)

    @property
    def stage2(self) -> Stage2Config:
        """The settings that say how the VLM is prompted and run."""
        assert self.config.stage2 is not None
        return self.config.stage2

    def settings(self) -> dict[str, object]:
        """What any system's predictions depend on, beside the system."""
        return {
            "vlm": self.config.vlm,
            "image size": self.config.image_size,
            "style": self.stage2.style,
            "bf16": self.stage2.bf16,
            "seed": self.config.seed,
            "max_description_tokens": self.config.max_description_tokens,
            "samples": hashlib.sha256(Path(self.config.samples).read_bytes()).hexdigest(),
        }


def run(name: str, task: DescriptionTask, folder: Path, *, max_new_tokens: int = 512, batch_size: int = 16) -> Path:
    """Predicts all targets of a samples file by one baseline.

    Args:
        name: One of `BASELINES`.
        task: The targets, and the VLM.
        folder: Gets `predictions.jsonl`, and what is trained.
        max_new_tokens: The most tokens of a description (paper: 512).
        batch_size: Targets at a time.

    Returns:
        The predictions file.

    Raises:
        ConfigError: Settings are missing.
        InvalidArgumentError: The folder holds other predictions.
    """
    config = task.config
    inputs = BaselineInputs(
        vlm=task.vlm,
        style=task.stage2.style,
        people=task.people,
        others=descriptions_by_others(task.people, task.samples),
        folder=folder,
        max_new_tokens=max_new_tokens,
        max_description_tokens=config.max_description_tokens,
        seed=config.seed,
        tuning=config.prompt_tuning,
        bf16=task.stage2.bf16,
        feature_cache=config.feature_cache,
    )
    built: list[System] = []

    def build() -> System:
        built.append(BASELINES[name](inputs))
        return built[0]

    settings = task.settings()
    if name == "prompt-tuning" and config.prompt_tuning is not None:
        settings["prompt_tuning"] = shaping_settings(config.prompt_tuning)
    path = predict(
        task.vlm, name, build, task.people, folder, settings, max_new_tokens=max_new_tokens, batch_size=batch_size
    )
    for system in built:
        if isinstance(system, FewShot) and system.shortened:
            print(f"{name}: {system.shortened} prompts held fewer samples than asked for: the VLM's context is full")
    return path


def descriptions_by_others(people: Sequence[Person], samples: Sequence[Sample]) -> list[list[str]]:
    """Training descriptions by people who have no targets, one list a person."""
    described = {person.name for person in people}
    texts: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.split == TRAIN and sample.description is not None and sample.subject not in described:
            texts.setdefault(str(sample.subject), []).append(sample)
    return [descriptions(own) for own in texts.values()]
