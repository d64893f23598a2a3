"""`python -m export vlm`: a Qwen2-VL from transformers to ONNX, or through Optimum to OpenVINO's own files."""

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
    parser.add_argument(
        "--runtime",
        choices=("onnxruntime", "openvino"),
        default="onnxruntime",
        help="onnxruntime (default) writes ONNX files, which OpenVINO reads as well; openvino writes its own, through "
        "Optimum",
    )
    optimum = parser.add_mutually_exclusive_group()
    optimum.add_argument(
        "--optimum-python",
        metavar="PYTHON",
        help="with --runtime openvino: the Python of the environment that Optimum is installed in (default: "
        "$PYDEPER_OPTIMUM_PYTHON, else .venv-optimum/bin/python)",
    )
    optimum.add_argument(
        "--from-optimum",
        type=Path,
        metavar="FOLDER",
        help="with --runtime openvino: take over what `optimum-cli export openvino` wrote, instead of running it",
    )
    parser.add_argument("--revision", help="branch, tag or commit of a Hub id")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--image-size", type=int, default=448, help="side in pixels that every image is resized to (448)")
    size.add_argument("--any-size", action="store_true", help="keep aspect ratios, between the source's limits")
    parser.set_defaults(execute=run)


def run(options: argparse.Namespace) -> str:
    """Runs the command; returns what it prints."""
    size = None if options.any_size else (options.image_size, options.image_size)
    if options.runtime == "openvino":
        figures = _openvino(options, size)
    elif options.optimum_python or options.from_optimum:
        raise ValueError("--optimum-python and --from-optimum go with --runtime openvino")
    else:
        figures = _onnx(options, size)
    return "\n".join([f"{options.out}: {options.precision}", *(f"  {name}: {x:.4g}" for name, x in figures.items())])


# torch and transformers take seconds to import; the other commands need neither.


def _onnx(options: argparse.Namespace, size: tuple[int, int] | None) -> dict[str, float]:
    from export.qwen2_vl.folder import export_vlm_folder

    _, report = export_vlm_folder(
        options.source,
        options.out,
        options.precision,
        image_size=size,
        revision=options.revision,
        progress=_say,
    )
    return {
        "image features, smallest cosine with transformers": report.vision_cosine,
        "logits, largest error with the weights as stored": max(report.prefill_error, report.step_error),
        "logits, smallest cosine with transformers": report.logits_cosine,
    }


def _openvino(options: argparse.Namespace, size: tuple[int, int] | None) -> dict[str, float]:
    from export.openvino.export import export_openvino_folder

    _, report = export_openvino_folder(
        options.source,
        options.out,
        options.precision,
        optimum_python=options.optimum_python,
        from_optimum=options.from_optimum,
        image_size=size,
        revision=options.revision,
        progress=_say,
    )
    return {
        "embeddings, largest error": report.embeddings_error,
        "image features, smallest cosine with transformers": report.vision_cosine,
        "logits, largest error": report.logits_error,
        "logits, smallest cosine with transformers": report.logits_cosine,
    }


def _say(step: str) -> None:
    print(step, flush=True)
