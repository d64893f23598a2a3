"""`python -m training baseline NAME`: everybody's descriptions by one baseline, as a predictions file."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs
import torch

from pydeper import Sample, read_samples
from training.baselines.few_shot import FewShot
from training.baselines.people import Person, descriptions, people_of
from training.baselines.predictions import predict
from training.baselines.prompt_tuning import tune
from training.baselines.system import SoftTokens, System
from training.baselines.text_statistics import TextStatistics
from training.baselines.zero_shot import ZeroShot
from training.config import ConfigError, PromptTuningConfig, Stage2Config, TrainingConfig, shaping_settings
from training.evaluation.predictions import References
from training.preparation.splits import TRAIN
from training.runs.frozen_parts import FrozenParts, load_vlm
from training.vlm.steered_vlm import SteeredVLM


@attrs.frozen(eq=False)
class Setting:
    """What a baseline is made from.

    Attributes:
        vlm: The frozen VLM.
        style: The prompt's style.
        people: Who is asked what.
        others: Descriptions by people of whom nothing is asked, one list a person.
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


def _few_shot(setting: Setting) -> System:
    return FewShot(
        setting.vlm,
        setting.style,
        max_new_tokens=setting.max_new_tokens,
        max_description_tokens=setting.max_description_tokens,
        seed=setting.seed,
    )


def _prompt_tuning(setting: Setting) -> System:
    if setting.tuning is None:
        raise ConfigError("prompt_tuning: missing; add a table [prompt_tuning] with its settings, at least steps")
    learned = []
    # Apart, because a few support samples would hardly ever be drawn from among all training samples.
    for group, steps in ((True, setting.tuning.steps), (False, setting.tuning.unseen_steps)):
        if people := [person for person in setting.people if person.seen == group]:
            config = attrs.evolve(setting.tuning, steps=steps)
            folder = setting.folder / ("seen" if group else "unseen")
            tokens = tune(
                setting.vlm,
                setting.style,
                people,
                config,
                setting.seed,
                folder,
                bf16=setting.bf16,
                feature_cache=setting.feature_cache,
            )
            learned.append((people, tokens))
    everybody = [person for people, _ in learned for person in people]
    soft_tokens = torch.cat([tokens for _, tokens in learned])
    return SoftTokens(setting.vlm, setting.style, everybody, soft_tokens)


BASELINES: Mapping[str, Callable[[Setting], System]] = {
    "zero-shot": lambda setting: ZeroShot(setting.vlm, setting.style),
    "few-shot": _few_shot,
    "text-statistics": lambda setting: TextStatistics(setting.vlm, setting.style, setting.people, setting.others),
    "prompt-tuning": _prompt_tuning,
}


@attrs.frozen(eq=False)
class Asked:
    """Everybody who is asked something in a samples file, and the frozen VLM that is to answer.

    Attributes:
        config: Names both.
        parts: The frozen parts that read samples.
        vlm: On the device where it is to run.
        people: Who is asked what.
        samples: All samples of the file.
    """

    config: TrainingConfig
    parts: FrozenParts
    vlm: SteeredVLM
    people: Sequence[Person]
    samples: Sequence[Sample]

    @classmethod
    def load(cls, config: TrainingConfig, dataset: str | None = None) -> "Asked":
        """Reads the samples, then loads the frozen parts.

        Args:
            config: `stage2` has the prompt's style and the VLM's precision.
            dataset: What to call the data set; see `References.of`.
        """
        if config.stage2 is None:
            raise ConfigError("stage2: missing; it says which style the prompts are of, and the VLM's precision")
        samples = read_samples(config.samples)
        people = people_of(samples, References.of(Path(config.samples), samples, dataset))
        parts = FrozenParts.load(config)
        vlm = load_vlm(config, parts.tokenizer).to("cuda" if torch.cuda.is_available() else "cpu")
        return cls(config, parts, vlm, people, samples)

    @property
    def stage2(self) -> Stage2Config:
        """The settings that say how the VLM is asked."""
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


def run(name: str, asked: Asked, folder: Path, *, max_new_tokens: int = 512, batch_size: int = 16) -> Path:
    """Asks a baseline everything that a samples file asks of anybody.

    Args:
        name: One of `BASELINES`.
        asked: Who is asked what, by which VLM.
        folder: Gets `predictions.jsonl`, and what is trained.
        max_new_tokens: The most tokens of a description (paper: 512).
        batch_size: Questions at a time.

    Returns:
        The predictions file.

    Raises:
        ConfigError: Settings are missing.
        InvalidArgumentError: The folder holds other predictions.
    """
    config = asked.config
    setting = Setting(
        vlm=asked.vlm,
        style=asked.stage2.style,
        people=asked.people,
        others=others_than(asked.people, asked.samples),
        folder=folder,
        max_new_tokens=max_new_tokens,
        max_description_tokens=config.max_description_tokens,
        seed=config.seed,
        tuning=config.prompt_tuning,
        bf16=asked.stage2.bf16,
        feature_cache=config.feature_cache,
    )
    built: list[System] = []

    def build() -> System:
        built.append(BASELINES[name](setting))
        return built[0]

    settings = asked.settings()
    if name == "prompt-tuning" and config.prompt_tuning is not None:
        settings["prompt_tuning"] = shaping_settings(config.prompt_tuning)
    path = predict(
        asked.vlm, name, build, asked.people, folder, settings, max_new_tokens=max_new_tokens, batch_size=batch_size
    )
    for system in built:
        if isinstance(system, FewShot) and system.shortened:
            print(f"{name}: {system.shortened} prompts held fewer samples than asked for: the VLM's context is full")
    return path


def others_than(people: Sequence[Person], samples: Sequence[Sample]) -> list[list[str]]:
    """Training descriptions by people who are asked nothing, one list a person."""
    asked = {person.name for person in people}
    texts: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.split == TRAIN and sample.description is not None and sample.subject not in asked:
            texts.setdefault(str(sample.subject), []).append(sample)
    return [descriptions(own) for own in texts.values()]
