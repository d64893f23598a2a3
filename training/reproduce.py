"""`python -m training reproduce EXPERIMENT`: an experiment of the paper, from its data to its table.

Everything is the commands that there are, in turn: prepare, stage1, stage2, the baselines, and the scores of evaluate,
with the paper's figures (`paper.toml`) beside them. What is done is kept in the experiment's folder, not done again:

    OUT/data        the prepared data set
    OUT/SYSTEM      one folder a system: its training, and predictions.jsonl
    OUT/results     tables and pictures

Training on several devices: `accelerate launch -m training stage1 --config … --out OUT/DEPER`, likewise stage2, with
the same settings; this command then goes on from there.
"""

import argparse
import json
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
import torch
from torch import Tensor

from pydeper import read_samples
from pydeper.atomic import atomic_path
from pydeper.errors import InvalidArgumentError
from pydeper.samples.sample import Sample
from training.baselines.ablations import ABLATIONS, settings_of
from training.baselines.predictions import predict
from training.baselines.run import BASELINES, Asked
from training.baselines.run import run as run_baseline
from training.baselines.system import SoftTokens
from training.config import ConfigError, TrainingConfig, load_config, shaping_settings
from training.errors import TrainingError
from training.evaluation import evaluate
from training.evaluation.bootstrap import Interval
from training.evaluation.predictions import Prediction, read_predictions
from training.evaluation.report import Figure, format_table, write_report
from training.loop.checkpoints import is_finished, load_state
from training.network.adapter import Adapter
from training.network.deper import Deper
from training.preparation import formats
from training.preparation.splits import SUPPORT, TRAIN, hash_order
from training.runs.folders import stage1_folder, stage2_folder
from training.runs.train_stages import train_stage1, train_stage2
from training.stages.embedding import embed

DEPER = "DEPER"
SYSTEMS = (*BASELINES, DEPER)
"""What is compared unless other systems are named; `ABLATED` can be named as well."""
ABLATED = tuple(f"{DEPER}, {name}" for name in ABLATIONS)

_CONFIGS = Path(__file__).parent / "configs"
_PAPER = Path(__file__).parent / "paper.toml"


@attrs.frozen
class Source:
    """How an experiment's data become samples.

    Attributes:
        name: What the data set is called; the paper's figures go by this name.
        prepare: Arguments of `prepare` before its --images; None: the data have to be prepared already.
        narratives: The pattern of the files, for Localized Narratives.
        training_samples: At most so many training samples of each seen person; None: all.
    """

    name: str
    prepare: tuple[str, ...] | None = None
    narratives: str | None = None
    training_samples: int | None = None


EXPERIMENTS: Mapping[str, Source] = {
    "coco-ln": Source(
        "coco-ln", ("localized-narratives", "--unseen-people", "19"), "coco_*localized_narratives*.jsonl"
    ),
    "flickr30k-ln": Source(
        "flickr30k-ln", ("localized-narratives", "--unseen-people", "10"), "flickr30k_*localized_narratives*.jsonl"
    ),
    "flickr30k-ln-100": Source(
        "flickr30k-ln", ("localized-narratives", "--unseen-people", "10"), "flickr30k_*localized_narratives*.jsonl", 100
    ),
    "kollenda": Source("kollenda"),
    "he": Source("he", ("capgaze", "--unseen-people", "0")),
}


def run(
    experiment: str,
    data: Path,
    out: Path | None = None,
    changes: Sequence[str] = (),
    *,
    systems: Sequence[str] = SYSTEMS,
    scoring: evaluate.Scoring | None = None,
    max_new_tokens: int = 512,
    batch_size: int = 16,
) -> None:
    """Runs an experiment, or what is left of it.

    Args:
        experiment: One of `EXPERIMENTS`, or the path of a configuration of one's own.
        data: The data set as it was published, or a folder that `prepare` made.
        out: The experiment's folder; None: runs/EXPERIMENT.
        changes: Changes to the configuration, as after `--set`.
        systems: Some of `SYSTEMS` and `ABLATED`.
        scoring: How descriptions are scored.
        max_new_tokens: The most tokens of a description (paper: 512).
        batch_size: Questions at a time.

    Raises:
        InvalidArgumentError: The experiment or a system is unknown, or the data are not where they should be.
        PydeperError: Of the step that fails.
    """
    if unknown := [system for system in systems if system not in (*SYSTEMS, *ABLATED)]:
        raise InvalidArgumentError(f"systems: {unknown[0]!r} is none of {', '.join(map(repr, (*SYSTEMS, *ABLATED)))}")
    config_file, source = _experiment(experiment)
    out = out or Path("runs") / config_file.stem
    samples = prepared(source, data, out / "data")
    settings = [f"samples={json.dumps(str(samples))}", *changes]
    whole = load_config(TrainingConfig, config_file, settings)
    _tell_epochs(whole)
    predictions: list[Prediction] = []
    for number, system in enumerate(systems, 1):
        print(f"\n{system} ({number} of {len(systems)})", flush=True)
        folder = out / system.replace(", ", "-").replace(" ", "-")
        limits = {"max_new_tokens": max_new_tokens, "batch_size": batch_size}
        if system in BASELINES:
            path = run_baseline(system, Asked.load(whole, source.name), folder, **limits)
        else:
            ablation = settings_of(system.removeprefix(f"{DEPER}, ")) if system != DEPER else ()
            config = load_config(TrainingConfig, config_file, [*settings, *ablation])
            path = deper(system, config, folder, source.name, **limits)
        predictions += read_predictions(path)
    facts = {"experiment": config_file.stem, "decoding": f"greedy, at most {max_new_tokens} tokens"}
    evaluate.report(predictions, scoring or evaluate.Scoring(), out / "results", facts)
    beside_the_paper(out / "results", sorted({row.dataset for row in predictions}))


def prepared(source: Source, data: Path, folder: Path) -> Path:
    """The experiment's samples file: the one in `data` where there is one, else what `prepare` makes of `data`.

    Raises:
        InvalidArgumentError: `data` is neither.
    """
    samples = data / "samples.jsonl"
    if not samples.is_file():
        samples = folder / "samples.jsonl"
        if not samples.is_file():
            _prepare(source, data, folder)
    if source.training_samples is None:
        return samples
    # Beside the original, because images are named relative to the file.
    fewer = samples.with_name(f"samples-{source.training_samples}.jsonl")
    if not fewer.is_file():
        write_fewer(samples, fewer, source.training_samples)
    return fewer


def write_fewer(samples: Path, fewer: Path, count: int) -> None:
    """Writes a samples file with at most `count` training samples of each person, by order of hashes; others stay."""
    lines = samples.read_text(encoding="utf-8").splitlines()
    own: dict[str, list[str]] = {}
    for line in lines:
        record = json.loads(line)
        if record.get("split") == TRAIN:
            own.setdefault(record["subject"], []).append(line)
    chosen = {line for texts in own.values() for line in hash_order(texts)[:count]}
    kept = [line for line in lines if line in chosen or json.loads(line).get("split") != TRAIN]
    with atomic_path(fewer) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def deper(
    name: str, config: TrainingConfig, folder: Path, dataset: str, *, max_new_tokens: int = 512, batch_size: int = 16
) -> Path:
    """Trains DEPER, whole or ablated, and asks it everything.

    Args:
        name: The system's.
        config: The training.
        folder: Gets both stages and `predictions.jsonl`.
        dataset: What the data set is called.
        max_new_tokens: The most tokens of a description.
        batch_size: Questions at a time.

    Returns:
        The predictions file.
    """
    if config.stage2 is None:
        raise ConfigError("stage2: missing; add a table [stage2] with its settings, at least steps")
    if not is_finished(stage1_folder(folder), config.stage1.steps):
        train_stage1(config, folder)
    if not is_finished(stage2_folder(folder), config.stage2.steps):
        train_stage2(config, folder)
    asked = Asked.load(config, dataset)

    def build() -> SoftTokens:
        return SoftTokens(asked.vlm, asked.stage2.style, asked.people, soft_tokens(asked, folder))

    settings = asked.settings() | {
        "network": attrs.asdict(config.network),
        "stage1": shaping_settings(config.stage1),
        "stage2": shaping_settings(config.stage2),
    }
    return predict(
        asked.vlm, name, build, asked.people, folder, settings, max_new_tokens=max_new_tokens, batch_size=batch_size
    )


def soft_tokens(asked: Asked, folder: Path) -> Tensor:
    """The adapter's soft token of everybody's persona, (people, hidden).

    A seen person's persona is the mean of z_s over the first 100 training samples, an unseen person's over all support
    samples, as `python -m training evaluate` has them.
    """
    config = asked.config
    stage2 = stage2_folder(folder)
    trained = Deper(config.network, num_subjects=1)  # the subject head is of training alone
    adapter = Adapter(config.network.subject_embedding_size, asked.vlm.config.hidden_size)
    load_state(stage2, trained.persona_encoder, "encoder")
    load_state(stage2, adapter, "adapter")
    device = asked.vlm.model.device
    parts, trained = asked.parts.to(device), trained.to(device)
    everybody = known_samples(asked.samples, [person.name for person in asked.people])
    data = parts.encode([sample for own in everybody.values() for sample in own])
    vectors = embed(trained, parts.text_table, data)
    # By subject, not by place: samples with unreadable images may have been left out.
    means = [vectors[data.subject_of == data.subjects.index(name)].mean(axis=0) for name in everybody]
    with torch.no_grad():
        tokens: Tensor = adapter(torch.from_numpy(np.stack(means)))
    return tokens


def known_samples(samples: Sequence[Sample], people: Sequence[str]) -> dict[str, list[Sample]]:
    """The samples that each person's persona is made from."""
    own: dict[str, list[Sample]] = {name: [] for name in people}
    for sample in samples:
        if sample.split in (TRAIN, SUPPORT) and sample.subject in own:
            own[sample.subject].append(sample)
    return {name: known[: evaluate.TRAINING_SAMPLES] for name, known in own.items()}


def beside_the_paper(results: Path, datasets: Sequence[str]) -> None:
    """Writes and prints each data set's table with the paper's figures under those measured here."""
    paper = tomllib.loads(_PAPER.read_text(encoding="utf-8"))
    for dataset in datasets:
        name = re.sub(r"\W+", "-", dataset).strip("-").lower()
        measured = json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
        rows: dict[str, dict[str, Figure]] = {}
        theirs: Mapping[str, Mapping[str, float]] = paper.get(dataset, {})
        for system in dict.fromkeys([*measured["results"], *theirs]):
            if system in measured["results"]:
                rows[system] = {metric: _figure(figure) for metric, figure in measured["results"][system].items()}
            if system in theirs:
                rows[f"{system} (paper)"] = dict(theirs[system])
        write_report(results, f"{name}-beside-paper", rows, title=f"{dataset}, and the paper", facts=measured["facts"])
        print(f"\n{dataset}, and the paper\n\n{format_table(rows)}")


def _figure(stored: Mapping[str, float]) -> Figure:
    """A figure as `write_report` stores it."""
    if "low" not in stored:
        return stored["value"]
    return Interval(stored["value"], stored["low"], stored["high"], stored["level"])


def _experiment(name: str) -> tuple[Path, Source]:
    if name in EXPERIMENTS:
        return _CONFIGS / f"{name}.toml", EXPERIMENTS[name]
    if (path := Path(name)).is_file():
        return path, EXPERIMENTS.get(path.stem, Source(path.stem))
    raise InvalidArgumentError(
        f"there is no experiment {name!r}; there are {', '.join(EXPERIMENTS)}, or name a configuration's file"
    )


def _prepare(source: Source, data: Path, folder: Path) -> None:
    if source.prepare is None:
        raise InvalidArgumentError(
            f"{data}: holds no samples.jsonl; make one with `python -m training prepare FORMAT … --out DIR`, name DIR"
        )
    kind, *arguments = source.prepare
    if source.narratives is not None:
        if not (files := sorted(data.glob(source.narratives))):
            raise InvalidArgumentError(
                f"{data}: holds neither samples.jsonl nor {source.narratives}; download the narratives into it"
            )
        arguments = [*map(str, files), "--images", str(data / "images"), *arguments]
    else:
        arguments = [str(data), *arguments]
    parser = argparse.ArgumentParser(prog="python -m training prepare")
    formats.add_to(parser)
    formats.run(parser.parse_args([kind, *arguments, "--out", str(folder), "--name", source.name]))


def _tell_epochs(config: TrainingConfig) -> None:
    samples = Counter(sample.split for sample in read_samples(config.samples))
    if not samples[TRAIN]:
        raise TrainingError(f"{config.samples}: no sample is of the split {TRAIN!r}; there is nothing to train on")
    stages = {"stage 1": config.stage1, "stage 2": config.stage2}
    for name, stage in stages.items():
        if stage is not None:
            epochs = stage.steps * stage.batch_size * stage.accumulation / samples[TRAIN]
            print(f"{name}: {stage.steps} steps are {epochs:.1f} epochs of {samples[TRAIN]} samples on one device")
