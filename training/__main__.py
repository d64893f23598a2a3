"""`python -m training`: trains DEPER, makes the tiny model, measures."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pydeper.errors import PydeperError

_CONFIGS = Path(__file__).parent / "configs"
_PROJECT = Path(__file__).parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (2 for a mistake of the user, 130 for Ctrl-C)."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except PydeperError as error:
        print(f"python -m training {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    tiny = commands.add_parser("tiny", help="make the built-in demonstration model from nothing, and measure it")
    tiny.add_argument("--config", type=Path, default=_CONFIGS / "tiny.toml")
    tiny.add_argument("--out", type=Path, default=Path("runs/tiny"), help="checkpoints and logs (default: %(default)s)")
    tiny.add_argument("--bundle", type=Path, help="where the bundle goes (default: OUT/bundle)")
    tiny.add_argument("--report", type=Path, help="where the results go (default: OUT/results)")
    tiny.add_argument("--skip-evaluation", action="store_true", help="make the bundle only")
    tiny.set_defaults(run=_tiny)

    for stage in (1, 2):
        command = commands.add_parser(f"stage{stage}", help=f"train stage {stage} on the samples that a config names")
        command.add_argument("--config", type=Path, required=True)
        command.add_argument("--out", type=Path, required=True, help="folder of checkpoints and logs")
        command.set_defaults(run=_stage1 if stage == 1 else _stage2)

    for command in commands.choices.values():
        command.add_argument(
            "--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="change a setting"
        )
    return parser


def _tiny(options: argparse.Namespace) -> None:
    # The command that makes a whole model is the one place of training that reaches up to export; nothing imports it.
    from export.tiny import export_bundle, size_of
    from training.config import load_config
    from training.tiny.config import TinyConfig
    from training.tiny.make import make
    from training.tiny.results import measure

    config = load_config(TinyConfig, options.config, options.changes)
    trained = make(config, options.out)
    bundle = options.bundle or options.out / "bundle"
    parity = export_bundle(config, trained, bundle).figures()
    print(f"{bundle}: {size_of(bundle) / 1e6:.1f} MB; largest differences from torch: {parity}")
    if not options.skip_evaluation:
        measure(config, trained, bundle, parity, options.report or options.out / "results")


def _stage1(options: argparse.Namespace) -> None:
    from training import runs
    from training.config import TrainingConfig, load_config

    runs.stage1(load_config(TrainingConfig, options.config, options.changes), options.out)


def _stage2(options: argparse.Namespace) -> None:
    from training import runs
    from training.config import TrainingConfig, load_config

    runs.stage2(load_config(TrainingConfig, options.config, options.changes), options.out)


if __name__ == "__main__":
    sys.exit(main())
