"""`python -m export parts`: the built-in model's frozen parts as PyTorch modules, to train with."""

import argparse
from pathlib import Path

from pydeper.bundle.layout import BUILTIN
from training.paths import CONFIGS


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    does = "read the built-in model's VLM and image encoder back from its ONNX files, to train with them"
    parser = commands.add_parser(
        "parts",
        help=does,
        description=does,
        epilog="OUT/vlm and OUT/image-encoder have the layout of transformers. OUT is also a folder in which "
        "`python -m training tiny` has finished its pre-trainings.",
    )
    parser.add_argument(
        "--config", type=Path, default=CONFIGS / "tiny.toml", help="the configuration that it was trained with"
    )
    parser.add_argument(
        "--bundle", type=Path, default=BUILTIN / "tiny", help="the bundle (the one that comes with pydeper)"
    )
    parser.add_argument("--out", type=Path, default=Path("parts"), help="the folder; it must not exist (%(default)s)")
    parser.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="as given to the training"
    )
    parser.set_defaults(execute=run)


def run(options: argparse.Namespace) -> str:
    """Runs the command; returns what it prints."""
    from export.parts import IMAGE_ENCODER, VLM, export_parts
    from training.config import load_config
    from training.tiny.config import TinyConfig

    export_parts(load_config(TinyConfig, options.config, options.changes), options.bundle, options.out)
    return f"{options.out / VLM} and {options.out / IMAGE_ENCODER}: the built-in model's frozen parts"
