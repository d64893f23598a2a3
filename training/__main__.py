"""`python -m training`: trains DEPER, makes the tiny model, measures."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pydeper.errors import PydeperError
from training.preparation import formats

_CONFIGS = Path(__file__).parent / "configs"
_PROJECT = Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (2 for a mistake of the user, 130 for Ctrl-C, 143 for SIGTERM)."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except PydeperError as error:
        print(f"python -m training {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        hint = getattr(options, "interrupted", "the same command goes on from the last checkpoint")
        # A training run that was asked to stop says itself what it saved, and which signal came.
        print(f"\n{str(stop) or f'interrupted; {hint}'}", file=sys.stderr)
        return int(getattr(stop, "code", 130))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    tiny = commands.add_parser("tiny", help="train the built-in demonstration model from nothing")
    tiny.add_argument("--config", type=Path, default=_CONFIGS / "tiny.toml")
    tiny.add_argument("--out", type=Path, default=Path("runs/tiny"), help="checkpoints and logs (default: %(default)s)")
    tiny.set_defaults(run=_tiny)

    for stage in (1, 2):
        command = commands.add_parser(f"stage{stage}", help=f"train stage {stage} on the samples that a config names")
        command.add_argument("--config", type=Path, required=True)
        command.add_argument("--out", type=Path, required=True, help="folder of checkpoints and logs")
        command.set_defaults(run=_stage1 if stage == 1 else _stage2)

    shard = commands.add_parser("shard", help="pack samples with their images in tar shards, to train on from anywhere")
    shard.add_argument("samples", help="a JSON Lines file of samples")
    shard.add_argument("--out", type=Path, required=True, help="folder that gets the shards")
    shard.add_argument("--shard-mib", type=int, default=128, metavar="MIB", help="of a shard (default: %(default)s)")
    shard.add_argument("--skip-broken-images", type=int, default=0, metavar="N", help="that many may be unreadable")
    shard.set_defaults(run=_shard)

    plots = commands.add_parser("plots", help="draw a run's losses, its people as points, and how they looked")
    plots.add_argument("--out", type=Path, required=True, help="folder of the run; gets plots/")
    plots.add_argument("--projection", choices=("pca", "tsne"), default="pca", help="(default: %(default)s)")
    plots.add_argument("--pictures", type=int, default=6, metavar="N", help="trajectories (default: %(default)s)")
    plots.set_defaults(run=_plots)

    identify = commands.add_parser(
        "identify",
        help="train stage 1 on one part of the samples and tell who made the others, beside classical answers",
    )
    identify.add_argument("--config", type=Path, default=_CONFIGS / "scene_description.toml")
    identify.add_argument("--data", type=Path, metavar="FOLDER", help="holds samples.jsonl (or use --set samples=FILE)")
    identify.add_argument("--out", type=Path, required=True, help="folder of checkpoints and logs")
    identify.add_argument("--report", type=Path, help="where the results go (default: OUT/results)")
    identify.add_argument(
        "--selection-folds", type=int, default=7, metavar="K", help="to choose within the training split (default: 7)"
    )
    identify.add_argument(
        "--folds", type=int, nargs="*", default=[], metavar="K", help="also measure K-fold over all photographs"
    )
    identify.add_argument(
        "--new-people", type=int, default=0, metavar="P", help="also enrol P people at a time who were not trained on"
    )
    identify.add_argument(
        "--draws", type=int, default=100, metavar="N", help="random enrolments of each P people (default: %(default)s)"
    )
    identify.add_argument(
        "--trainings", type=int, default=1, metavar="N", help="an ensemble of N, with seeds one apart (default: 1)"
    )
    identify.set_defaults(run=_identify)

    evaluate = commands.add_parser(
        "evaluate", help="score descriptions, from files or made by a model, with intervals, person by person"
    )
    evaluate.add_argument("--predictions", type=Path, nargs="+", default=[], metavar="FILE", help="JSON Lines")
    evaluate.add_argument("--samples", type=Path, metavar="FILE", help="what people wrote; what a model is asked")
    evaluate.add_argument("--bundle", metavar="MODEL", help='folder, Hub id or "tiny": describes the samples first')
    evaluate.add_argument(
        "--splits", nargs="+", metavar="SPLIT", default=["test", "query"], help="which samples a model describes"
    )
    evaluate.add_argument("--style", default="description", help="prompt style of the model (default: %(default)s)")
    evaluate.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="(default: %(default)s)")
    evaluate.add_argument("--zero-shot", action="store_true", help="the model also describes without a persona")
    evaluate.add_argument("--dataset", metavar="NAME", help="what to call the samples' data set")
    evaluate.add_argument("--metrics", nargs="+", metavar="METRIC", help="some of them (default: all)")
    evaluate.add_argument(
        "--tokenizer", choices=["ptb", "words", "split"], default="ptb", help="(default: %(default)s)"
    )
    evaluate.add_argument("--wordnet", choices=["meteor", "nltk"], default="meteor", help="(default: %(default)s)")
    evaluate.add_argument("--out", type=Path, required=True, help="folder of predictions, tables and pictures")
    evaluate.set_defaults(run=_evaluate)

    prepared = commands.add_parser("prepare", help="make a data set to train on from files of people who look and tell")
    formats.add_to(prepared)
    prepared.set_defaults(run=formats.run, interrupted="nothing was written")

    privacy = commands.add_parser("privacy", help="measure what a persona of the built-in model gives away")
    privacy.add_argument("--config", type=Path, default=_CONFIGS / "tiny.toml", help="what the model was made with")
    privacy.add_argument("--report", type=Path, default=_PROJECT / "docs" / "results", help="where the results go")
    privacy.set_defaults(run=_privacy)

    page = commands.add_parser("page", help="fill the tables of a Markdown page in anew from the results beside it")
    page.add_argument("page", type=Path, help="for example docs/results.md")
    page.add_argument("--results", type=Path, help="folder of the JSON files (default: the page's name, without .md)")
    page.set_defaults(run=_page)

    baseline = commands.add_parser("baseline", help="let a baseline describe a config's samples, for evaluate to score")
    baseline.add_argument("name", choices=["zero-shot", "few-shot", "text-statistics", "prompt-tuning"])
    baseline.add_argument("--config", type=Path, required=True)
    baseline.add_argument("--out", type=Path, required=True, help="folder of predictions.jsonl, and of what is trained")
    baseline.add_argument("--dataset", metavar="NAME", help="what to call the samples' data set, as in evaluate")
    baseline.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="(default: %(default)s)")
    baseline.add_argument("--batch-size", type=int, default=16, metavar="N", help="at a time (default: %(default)s)")
    baseline.set_defaults(run=_baseline, interrupted="the same command goes on with the next description")

    table = commands.add_parser(
        "table", help="baselines, DEPER and its ablations in the tiny world, over several seeds"
    )
    table.add_argument("--config", type=Path, default=_CONFIGS / "tiny.toml")
    table.add_argument("--frozen", type=Path, default=Path("runs/tiny"), help="the tiny VLM's (default: %(default)s)")
    table.add_argument("--out", type=Path, default=Path("runs/table"), help="what is done (default: %(default)s)")
    table.add_argument("--report", type=Path, help="where the results go (default: OUT/results)")
    table.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each (default: %(default)s)")
    table.add_argument("--systems", nargs="+", metavar="SYSTEM", help='some, such as "DEPER, no FiLM" (default: all)')
    table.add_argument("--metrics", nargs="+", metavar="METRIC", help="some of them (default: all; METEOR needs Java)")
    table.set_defaults(run=_table, interrupted="the same command goes on where it stopped")

    reproduce = commands.add_parser("reproduce", help="an experiment of the paper, from its data to its table")
    reproduce.add_argument("experiment", metavar="EXPERIMENT", help="a configuration with that name, or its path")
    reproduce.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data set as it was published")
    reproduce.add_argument("--out", type=Path, metavar="DIR", help="(default: runs/EXPERIMENT)")
    reproduce.add_argument(
        "--systems", nargs="+", metavar="SYSTEM", help='such as "DEPER, no FiLM" (default: no ablation)'
    )
    reproduce.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="(default: %(default)s)")
    reproduce.add_argument("--batch-size", type=int, default=16, metavar="N", help="at a time (default: %(default)s)")
    reproduce.add_argument("--metrics", nargs="+", metavar="METRIC", help="some of them (default: all)")
    reproduce.add_argument(
        "--tokenizer", choices=["ptb", "words", "split"], default="ptb", help="(default: %(default)s)"
    )
    reproduce.set_defaults(run=_reproduce, interrupted="the same command goes on where it stopped")

    without_config = ("evaluate", "page", "plots", "prepare", "privacy", "shard")
    for command in (command for name, command in commands.choices.items() if name not in without_config):
        command.add_argument(
            "--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="change a setting"
        )
    return parser


def _tiny(options: argparse.Namespace) -> None:
    from training.config import load_config
    from training.tiny.config import TinyConfig
    from training.tiny.make import make

    make(load_config(TinyConfig, options.config, options.changes), options.out)
    print(f"{options.out}: trained; `python -m export tiny --out {options.out}` makes the bundle")


def _stage1(options: argparse.Namespace) -> None:
    from training.config import TrainingConfig, load_config
    from training.runs.train_stages import train_stage1

    train_stage1(load_config(TrainingConfig, options.config, options.changes), options.out)


def _stage2(options: argparse.Namespace) -> None:
    from training.config import TrainingConfig, load_config
    from training.runs.train_stages import train_stage2

    train_stage2(load_config(TrainingConfig, options.config, options.changes), options.out)


def _shard(options: argparse.Namespace) -> None:
    from training.data.shards import read_samples, write_shards

    samples = read_samples(options.samples)
    written = write_shards(
        samples, options.out, shard_mib=options.shard_mib, skip_broken_images=options.skip_broken_images
    )
    broken = f"; {written.broken} images cannot be read, and were left out" if written.broken else ""
    print(f"{options.out}: {written.samples} samples of {written.images} images in {written.shards} shards{broken}")


def _plots(options: argparse.Namespace) -> None:
    from training.runs.plots import plot_run

    for path in plot_run(options.out, options.projection, options.pictures):
        print(path)


def _identify(options: argparse.Namespace) -> None:
    from training.config import TrainingConfig, load_config
    from training.people.identify import Protocols, run

    changes = [*options.changes]
    if options.data is not None:
        changes.insert(0, f"samples={json.dumps(str(options.data / 'samples.jsonl'))}")
    config = load_config(TrainingConfig, options.config, changes)
    report = options.report or options.out / "results"
    protocols = Protocols(
        selection_folds=options.selection_folds,
        folds=options.folds,
        new_people=options.new_people,
        draws=options.draws,
        trainings=options.trainings,
    )
    run(config, options.out, report, protocols, options.changes)


def _evaluate(options: argparse.Namespace) -> None:
    from training.evaluation.evaluate import Describing, Scoring, run
    from training.evaluation.scores import METRICS

    describing = Describing(
        bundle=options.bundle,
        splits=tuple(options.splits),
        style=options.style,
        max_new_tokens=options.max_new_tokens,
        zero_shot=options.zero_shot,
    )
    run(
        options.out,
        Scoring(metrics=tuple(options.metrics or METRICS), tokenizer=options.tokenizer, wordnet=options.wordnet),
        files=options.predictions,
        samples=options.samples,
        describing=describing if options.bundle else None,
        dataset=options.dataset,
    )


def _baseline(options: argparse.Namespace) -> None:
    from training.baselines.run import Asked, run
    from training.config import TrainingConfig, load_config

    asked = Asked.load(load_config(TrainingConfig, options.config, options.changes), options.dataset)
    limits = {"max_new_tokens": options.max_new_tokens, "batch_size": options.batch_size}
    path = run(options.name, asked, options.out, **limits)
    print(f"{path}: score it with `python -m training evaluate --predictions {path}`")


def _table(options: argparse.Namespace) -> None:
    from training.evaluation.scores import METRICS
    from training.tiny.table import SYSTEMS, run

    run(
        options.config,
        options.changes,
        options.frozen,
        options.out,
        options.report or options.out / "results",
        seeds=options.seeds,
        systems=options.systems or SYSTEMS,
        metrics=options.metrics or METRICS,
    )


def _reproduce(options: argparse.Namespace) -> None:
    from training.evaluation.evaluate import Scoring
    from training.evaluation.scores import METRICS
    from training.reproduce import SYSTEMS, run

    run(
        options.experiment,
        options.data,
        options.out,
        options.changes,
        systems=options.systems or SYSTEMS,
        scoring=Scoring(metrics=tuple(options.metrics or METRICS), tokenizer=options.tokenizer),
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size,
    )


def _privacy(options: argparse.Namespace) -> None:
    from training.people import privacy

    print(privacy.run(options.config, options.report)[1].read_text(encoding="utf-8"))


def _page(options: argparse.Namespace) -> None:
    from training.evaluation.page import refresh

    refresh(options.page, options.results or options.page.with_suffix(""))


if __name__ == "__main__":
    sys.exit(main())
