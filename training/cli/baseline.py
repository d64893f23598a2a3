"""`python -m training baseline`: lets a baseline describe a configuration's samples."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-command's arguments."""
    parser.add_argument(
        "name",
        choices=[
            "zero-shot",
            "few-shot",
            "text-statistics",
            "prompt-tuning",
            "prompt-tuning with LoRA",
            "CSMN",
            "MITR",
            "MITR, fine-tuned per person",
        ],
    )
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of predictions.jsonl, and of what is trained")
    parser.add_argument("--dataset", metavar="NAME", help="what to call the samples' data set, as in evaluate")
    parser.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="at a time (default: %(default)s)")


def run(options: argparse.Namespace) -> None:
    """Runs the sub-command."""
    from training.baselines.run import DescriptionTask, run
    from training.config import TrainingConfig, load_config

    task = DescriptionTask.load(load_config(TrainingConfig, options.config, options.changes), options.dataset)
    limits = {"max_new_tokens": options.max_new_tokens, "batch_size": options.batch_size}
    path = run(options.name, task, options.out, **limits)
    print(f"{path}: score it with `python -m training evaluate --predictions {path}`")
