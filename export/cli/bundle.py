"""`python -m export bundle`: a finished training run to a bundle."""

import argparse
from pathlib import Path


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    does = "export a finished training run, check it against torch, and put it together with an exported VLM"
    parser = commands.add_parser("bundle", help=does, description=does)
    parser.add_argument("run", type=Path, help="the --out of `python -m training stage1` and `stage2`")
    parser.add_argument("--config", type=Path, required=True, help="the training's configuration")
    parser.add_argument("--vlm", type=Path, required=True, help="what `python -m export vlm` made of the run's VLM")
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder; it must not exist")
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp16", help="of the persona encoder")
    parser.add_argument("--licence", required=True, help="of the bundle: Apache-2.0, or a name of your own")
    parser.add_argument(
        "--image-encoder-licence", required=True, metavar="NAME", help="of the image encoder, whose weights go along"
    )
    parser.add_argument("--image-encoder-licence-text", type=Path, metavar="FILE", help="its text, to go along")
    parser.add_argument("--description", help="what the model is, for its card")
    parser.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="as given to the training"
    )
    parser.set_defaults(execute=run)


def run(options: argparse.Namespace) -> str:
    """Runs the command; returns what it prints."""
    from export.bundle.from_run import export_run
    from pydeper.bundle.config import ImageEncoderInfo
    from training.config import TrainingConfig, load_config

    config = load_config(TrainingConfig, options.config, options.changes)
    differences = export_run(
        config,
        options.run,
        options.vlm,
        options.out,
        image_encoder=ImageEncoderInfo(config.image_encoder, options.image_encoder_licence),
        licence=options.licence,
        description=options.description,
        precision=options.precision,
        image_encoder_licence=options.image_encoder_licence_text,
    )
    largest = (f"  {name}, largest difference from torch: {x:.2g}" for name, x in differences.items())
    return "\n".join([f"{options.out}: {config.name}", *largest])
