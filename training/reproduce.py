"""`python -m training reproduce EXPERIMENT`: an experiment of the paper, from its data to its table.

Everything is the commands that there are, in turn: prepare, stage1, stage2, the baselines, and the scores of evaluate,
with the paper's figures (`paper.toml`) beside them. What is done is kept in the experiment's folder, not done again:

    OUT/data        the prepared data set (see `training.reproduction.sources` for what is read)
    OUT/SYSTEM      one folder a system: its training, and predictions.jsonl
    OUT/results     tables and pictures

Training on several devices: `accelerate launch -m training stage1 --config … --out OUT/DEPER`, likewise stage2, with
the same settings; this command then goes on from there.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
import torch
from torch import Tensor

from pydeper import read_samples
from pydeper.errors import InvalidArgumentError
from pydeper.samples.sample import Sample
from training.baselines.ablations import ABLATIONS, settings_of
from training.baselines.predict import predict
from training.baselines.run import BASELINES, DescriptionTask
from training.baselines.run import run as run_baseline
from training.baselines.system import Describe, SoftTokens, by_prompts
from training.config import ConfigError, TrainingConfig, load_config, shaping_settings
from training.evaluation import evaluate
from training.evaluation.describe import TRAINING_SAMPLES
from training.evaluation.predictions import Prediction, References, read_predictions
from training.evaluation.report import Figure, check_reports, figure_from_json, format_table, write_report
from training.loop.checkpoints import load_state
from training.network.adapter import Adapter
from training.network.deper import Deper
from training.paths import CONFIGS
from training.preparation.splits import QUERY, SUPPORT, TEST, TRAIN
from training.reproduction.checks import check_samples
from training.reproduction.dry_run import estimate, planned_data
from training.reproduction.prepared import prepared
from training.reproduction.sources import EXPERIMENTS, DataOptions, DataSource
from training.reproduction.trainings import THROUGHPUT, Throughput, epochs
from training.runs.folders import stage1_folder, stage2_folder
from training.runs.train_stages import is_trained, train_stage1, train_stage2
from training.stages.embedding import embed

DEPER = "DEPER"
SYSTEMS = (*BASELINES, DEPER)
"""What is compared unless other systems are named; `ABLATED` can be named as well."""
ABLATED = tuple(f"{DEPER}, {name}" for name in ABLATIONS)

_PAPER = Path(__file__).parent / "paper.toml"


def run(
    experiment: str,
    data: Path,
    out: Path | None = None,
    changes: Sequence[str] = (),
    *,
    systems: Sequence[str] = SYSTEMS,
    options: DataOptions = DataOptions(),  # noqa: B008 - frozen
    scoring: evaluate.ScoreSettings | None = None,
    max_new_tokens: int = 512,
    batch_size: int = 16,
) -> None:
    """Runs an experiment, or what is left of it.

    Args:
        experiment: One of `EXPERIMENTS`, or the path of a configuration of one's own.
        data: The data set as it was published, its JSON of the released code, or a folder that `prepare` made.
        out: The experiment's folder; None: runs/EXPERIMENT.
        changes: Changes to the configuration, as after `--set`.
        systems: Some of `SYSTEMS` and `ABLATED`.
        options: How the data are read and split.
        scoring: How descriptions are scored.
        max_new_tokens: The most tokens of a description (paper: 512).
        batch_size: Targets at a time.

    Raises:
        InvalidArgumentError: The experiment or a system is unknown, or the data are not where they should be.
        PydeperError: Of the step that fails.
    """
    _check_systems(systems)
    config_file, source = _experiment(experiment)
    out = out or Path("runs") / config_file.stem
    samples = prepared(source, data, out / "data", options)
    settings = [f"samples={json.dumps(str(samples))}", *changes]
    whole = load_config(TrainingConfig, config_file, settings)
    everything = read_samples(whole.samples, check_durations=whole.check_durations)
    splits = [(sample.subject, sample.split) for sample in everything]
    check_samples(whole, splits, trains_deper=any(system not in BASELINES for system in systems))
    _check_outputs(out / "results", References.of(Path(whole.samples), everything, source.name), everything)
    _print_epochs(whole, everything)
    predictions: list[Prediction] = []
    for number, system in enumerate(systems, 1):
        print(f"\n{system} ({number} of {len(systems)})", flush=True)
        folder = out / system.replace(", ", "-").replace(" ", "-")
        limits = {"max_new_tokens": max_new_tokens, "batch_size": batch_size}
        if system in BASELINES:
            path = run_baseline(system, DescriptionTask.load(whole, source.name), folder, **limits)
        else:
            ablation = settings_of(system.removeprefix(f"{DEPER}, ")) if system != DEPER else ()
            config = load_config(TrainingConfig, config_file, [*settings, *ablation])
            path = deper(system, config, folder, source.name, **limits)
        predictions += read_predictions(path)
    facts = {"experiment": config_file.stem, "decoding": f"greedy, at most {max_new_tokens} tokens"}
    evaluate.report(predictions, scoring or evaluate.ScoreSettings(), out / "results", facts)
    compare_with_paper(out / "results", sorted({row.dataset for row in predictions}))


def dry_run(
    experiment: str,
    data: Path,
    out: Path | None = None,
    changes: Sequence[str] = (),
    *,
    systems: Sequence[str] = SYSTEMS,
    options: DataOptions = DataOptions(),  # noqa: B008 - frozen
    max_new_tokens: int = 512,
    throughput: Path = THROUGHPUT,
    gpu_speedup: float | None = None,
) -> str:
    """Says what `run` would read, train and take, and does nothing of it.

    Args:
        experiment: See `run`.
        data: See `run`.
        out: See `run`.
        changes: See `run`.
        systems: See `run`.
        options: See `run`.
        max_new_tokens: See `run`.
        throughput: A report of `python -m benchmarks.training_throughput --real`.
        gpu_speedup: See `training.reproduction.dry_run.estimate`.

    Raises:
        PydeperError: What `run` would refuse before it trains.
    """
    _check_systems(systems)
    rates = Throughput.read(throughput)
    config_file, source = _experiment(experiment)
    out = out or Path("runs") / config_file.stem
    config = load_config(TrainingConfig, config_file, [f"samples={json.dumps(str(data))}", *changes])
    planned = planned_data(source, data, out / "data", options)
    splits = [(sample.subject, sample.split) for sample in planned.samples]
    check_samples(config, splits, trains_deper=any(system not in BASELINES for system in systems))
    return estimate(
        config,
        planned,
        out,
        systems=systems,
        max_new_tokens=max_new_tokens,
        throughput=rates,
        gpu_speedup=gpu_speedup,
    )


def _check_systems(systems: Sequence[str]) -> None:
    if unknown := [system for system in systems if system not in (*SYSTEMS, *ABLATED)]:
        raise InvalidArgumentError(f"systems: {unknown[0]!r} is none of {', '.join(map(repr, (*SYSTEMS, *ABLATED)))}")


def _check_outputs(results: Path, references: References, samples: Sequence[Sample]) -> None:
    datasets = {references.dataset_of(sample) for sample in samples if sample.split in (TEST, QUERY)}
    evaluate.check_outputs(results, datasets)
    check_reports(results, [f"{evaluate.file_name(dataset)}-beside-paper" for dataset in datasets])


def deper(
    name: str, config: TrainingConfig, folder: Path, dataset: str, *, max_new_tokens: int = 512, batch_size: int = 16
) -> Path:
    """Trains DEPER, whole or ablated, and predicts all targets.

    Args:
        name: The system's.
        config: The training.
        folder: Gets both stages and `predictions.jsonl`.
        dataset: What the data set is called.
        max_new_tokens: The most tokens of a description.
        batch_size: Targets at a time.

    Returns:
        The predictions file.
    """
    train_deper(config, folder)
    task = DescriptionTask.load(config, dataset)
    return describe(name, task, folder, folder, max_new_tokens=max_new_tokens, batch_size=batch_size)


def train_deper(config: TrainingConfig, folder: Path) -> None:
    """Trains both stages, or what is left of them.

    Raises:
        ConfigError: There are no settings of stage 2.
        TrainingError: The folder holds a training with other settings, or on other samples.
    """
    if config.stage2 is None:
        raise ConfigError("stage2: missing; add a table [stage2] with its settings, at least steps")
    if not is_trained(config, config.stage1, stage1_folder(folder)):
        train_stage1(config, folder)
    if not is_trained(config, config.stage2, stage2_folder(folder)):
        train_stage2(config, folder)


def describe(
    name: str,
    task: DescriptionTask,
    trained: Path,
    folder: Path,
    *,
    without: str | None = None,
    max_new_tokens: int = 512,
    batch_size: int = 16,
) -> Path:
    """Predicts all targets with a trained DEPER.

    Args:
        name: The system's.
        task: The targets.
        trained: Holds both stages, trained.
        folder: Gets `predictions.jsonl`.
        without: A modality to withhold from the samples that personas are made from: "text" or "trajectory".
        max_new_tokens: The most tokens of a description.
        batch_size: Targets at a time.

    Returns:
        The predictions file.
    """
    config = task.config

    def build() -> Describe:
        tokens = soft_tokens(task, trained, without)
        return by_prompts(SoftTokens(task.vlm, task.stage2.style, task.people, tokens), max_new_tokens)

    settings = task.vlm_settings(max_new_tokens) | {
        "network": attrs.asdict(config.network),
        "stage1": shaping_settings(config.stage1),
        "stage2": shaping_settings(task.stage2),
        **({} if without is None else {"personas without": without}),
    }
    return predict(name, build, task.people, folder, settings, batch_size=batch_size)


def soft_tokens(task: DescriptionTask, folder: Path, without: str | None = None) -> Tensor:
    """The adapter's soft token of everybody's persona, (people, hidden).

    A seen person's persona is the mean of z_s over the first 100 training samples, an unseen person's over all support
    samples, as `python -m training evaluate` has them.

    Args:
        task: The people, and the frozen parts.
        folder: Holds both stages, trained.
        without: A modality to withhold from the samples: "text" or "trajectory".
    """
    config = task.config
    stage2 = stage2_folder(folder)
    trained = Deper(config.network, num_subjects=1)  # the subject head is of training alone
    adapter = Adapter(config.network.subject_embedding_size, task.vlm.config.hidden_size)
    load_state(stage2, trained.persona_encoder, "encoder")
    load_state(stage2, adapter, "adapter")
    device = task.vlm.model.device
    parts, trained = task.parts.to(device), trained.to(device)
    everybody = known_samples(task.samples, [person.name for person in task.people])
    data = parts.encode([sample for own in everybody.values() for sample in own])
    vectors = embed(trained, parts.text_table, data, without)
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
    return {name: known[:TRAINING_SAMPLES] for name, known in own.items()}


def compare_with_paper(results: Path, datasets: Sequence[str]) -> None:
    """Writes and prints each data set's table with the paper's figures under those measured here."""
    paper = tomllib.loads(_PAPER.read_text(encoding="utf-8"))
    for dataset in datasets:
        name = evaluate.file_name(dataset)
        measured = json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
        rows: dict[str, dict[str, Figure]] = {}
        theirs: Mapping[str, Mapping[str, float]] = paper.get(dataset, {})
        for system in dict.fromkeys([*measured["results"], *theirs]):
            if system in measured["results"]:
                rows[system] = {
                    metric: figure_from_json(figure) for metric, figure in measured["results"][system].items()
                }
            if system in theirs:
                rows[f"{system} (paper)"] = dict(theirs[system])
        write_report(results, f"{name}-beside-paper", rows, title=f"{dataset}, and the paper", facts=measured["facts"])
        print(f"\n{dataset}, and the paper\n\n{format_table(rows)}")


def _experiment(name: str) -> tuple[Path, DataSource]:
    if name in EXPERIMENTS:
        return CONFIGS / f"{name}.toml", EXPERIMENTS[name]
    if (path := Path(name)).is_file():
        return path, EXPERIMENTS.get(path.stem, DataSource(name=path.stem))
    raise InvalidArgumentError(
        f"there is no experiment {name!r}; there are {', '.join(EXPERIMENTS)}, or name a configuration's file"
    )


def _print_epochs(config: TrainingConfig, samples: Sequence[Sample]) -> None:
    training = sum(sample.split == TRAIN for sample in samples)
    stages = {"stage 1": config.stage1, "stage 2": config.stage2}
    for name, stage in stages.items():
        if stage is not None:
            print(f"{name}: {epochs(stage, training)} on one device")
