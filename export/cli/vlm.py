"""`python -m export vlm`: a Qwen2-VL from transformers to ONNX."""

import argparse
from pathlib import Path


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
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
    parser.set_defaults(execute=run)


def run(options: argparse.Namespace) -> str:
    """Runs the command; returns what it prints."""
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
