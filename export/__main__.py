"""The command `python -m export`: a VLM from transformers to ONNX, a trained model to a bundle, work on a bundle."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from export.bundle.assemble import write_card, write_manifest
from export.bundle.card import DATASETS, EVALUATION, LANGUAGE, add_facts
from export.push import add_push, run_push
from pydeper.bundle.bundle import read_config
from pydeper.bundle.manifest import verify
from pydeper.errors import PydeperError
from pydeper.publish import IMAGE_ENCODER_LICENCE

_DESCRIPTION = "Export a vision-language model or a trained model, or work on a finished bundle."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, or 2 with a message where something is not in order."""
    parser = argparse.ArgumentParser(prog="python -m export", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_vlm(commands)
    _add_bundle(commands)
    for name, does in (
        ("verify", "check every file against the manifest, and config.json"),
        ("manifest", "write manifest.json anew from the files that are there"),
    ):
        commands.add_parser(name, help=does, description=does).add_argument("bundle", type=Path, help="the folder")
    _add_card(commands)
    add_push(commands)
    options = parser.parse_args(arguments)
    try:
        print(_run(options))
    except (PydeperError, ValueError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    return 0


def _add_vlm(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    does = "export a Qwen2-VL, check it against transformers, and add its tokenizer and config"
    parser = commands.add_parser(
        "vlm",
        help=does,
        description=does,
        epilog="Interrupted, it goes on after the last finished step when it is called again in the same way.",
    )
    parser.add_argument("source", help="a folder laid out as on the Hub, or a Hub id: Qwen/Qwen2-VL-2B-Instruct")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write; several precisions may share it")
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8", "int4"), default="int4")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub id")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--image-size", type=int, default=448, help="side in pixels that every image is resized to (448)")
    size.add_argument("--any-size", action="store_true", help="keep aspect ratios, between the source's limits")


def _export_vlm(options: argparse.Namespace) -> str:
    # torch and transformers take seconds to import; the other commands need neither.
    from export.qwen2_vl.folder import export_vlm_folder

    size = None if options.any_size else (options.image_size, options.image_size)
    _, report = export_vlm_folder(
        options.source,
        options.out,
        options.precision,
        image_size=size,
        revision=options.revision,
        progress=lambda step: print(step, flush=True),
    )
    figures = {
        "image features, smallest cosine with transformers": report.vision_cosine,
        "logits, largest error with the weights as stored": max(report.prefill_error, report.step_error),
        "logits, smallest cosine with transformers": report.logits_cosine,
    }
    return "\n".join([f"{options.out}: {options.precision}", *(f"  {name}: {x:.4g}" for name, x in figures.items())])


def _add_bundle(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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


def _export_bundle(options: argparse.Namespace) -> str:
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


def _add_card(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    does = "write README.md anew from config.json and what the bundle holds, and then the manifest"
    parser = commands.add_parser("card", help=does, description=does)
    parser.add_argument("bundle", type=Path, help="the folder")
    parser.add_argument("--evaluation", type=Path, metavar="JSON", help="a report of the evaluation, to go along")
    parser.add_argument("--image-encoder-licence", type=Path, metavar="TEXT", help="its licence's text, to go along")
    parser.add_argument(
        "--dataset", action="append", metavar="ID", help="a data set it was trained on; may be repeated"
    )
    parser.add_argument("--language", action="append", metavar="CODE", help="of the descriptions (en); may be repeated")


def _write_card(options: argparse.Namespace) -> str:
    facts = {DATASETS: options.dataset, LANGUAGE: options.language}
    files = {EVALUATION: options.evaluation, IMAGE_ENCODER_LICENCE: options.image_encoder_licence}
    add_facts(
        options.bundle,
        {name: value for name, value in facts.items() if value},
        {name: path for name, path in files.items() if path},
    )
    return str(write_card(options.bundle))


def _run(options: argparse.Namespace) -> str:
    if options.command == "vlm":
        return _export_vlm(options)
    if options.command == "bundle":
        return _export_bundle(options)
    if options.command == "push":
        return run_push(options)
    if options.command == "card":
        return _write_card(options)
    if options.command == "manifest":
        entries = write_manifest(options.bundle)
        return f"{len(entries)} files, {sum(entry.size for entry in entries.values())} bytes"
    verify(options.bundle)
    return f"{options.bundle}: {read_config(options.bundle).name} is in order"


if __name__ == "__main__":
    sys.exit(main())
