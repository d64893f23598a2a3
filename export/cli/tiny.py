"""`python -m export tiny`: the built-in model's bundle and its results, from what `python -m training tiny` trained."""

import argparse
from pathlib import Path

from training.paths import CONFIGS


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    does = "export the trained built-in model, check it against torch, and measure it"
    parser = commands.add_parser(
        "tiny", help=does, description=does, epilog="It trains nothing: run `python -m training tiny` first."
    )
    parser.add_argument("--config", type=Path, default=CONFIGS / "tiny.toml", help="the training's configuration")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/tiny"), help="the --out of `python -m training tiny` (%(default)s)"
    )
    parser.add_argument("--bundle", type=Path, help="where the bundle goes (OUT/bundle)")
    parser.add_argument("--report", type=Path, help="where the results go (OUT/results)")
    parser.add_argument("--skip-evaluation", action="store_true", help="make the bundle only")
    parser.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="as given to the training"
    )
    parser.set_defaults(execute=run)


def run(options: argparse.Namespace) -> str:
    """Runs the command; returns what it prints."""
    from export.bundle.assemble import check_replaceable
    from export.tiny import export_tiny, size_of
    from training.config import load_config
    from training.evaluation.report import check_reports
    from training.tiny.config import TinyConfig
    from training.tiny.make import load_trained
    from training.tiny.results import REPORTS, measure

    config = load_config(TinyConfig, options.config, options.changes)
    bundle = options.bundle or options.out / "bundle"
    report = options.report or options.out / "results"
    check_replaceable(bundle)
    if not options.skip_evaluation:
        check_reports(report, REPORTS)
    trained = load_trained(config, options.out)
    differences = export_tiny(config, trained, bundle, options.changes)
    exported = f"{bundle}: {size_of(bundle) / 1e6:.1f} MB; largest differences from torch: {differences}"
    if options.skip_evaluation:
        return exported
    print(exported, flush=True)
    measure(config, trained, bundle, differences, report, options.changes)
    return f"{report}: the results"
