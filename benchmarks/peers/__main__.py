"""pydeper and other runtimes with Qwen2-VL-2B at its real size: `python -m benchmarks.peers`.

    pydeper, ONNX Runtime    the bundle's 4-bit files
    pydeper, OpenVINO        what Optimum exports in 4 bits, run by pydeper
    OpenVINO GenAI           the same files in its own pipeline
    transformers             on PyTorch, in bfloat16, or in float32 on processors without AVX-512
    llama.cpp                Q4_0 and Q4_K_M; the language model alone, with a prompt of as many random tokens

The weights are random (`benchmarks.standin`), which takes as long as real ones. A side is alone on the machine while it
is measured: in each round every one is started anew, describes a picture to warm up, and then another one. OpenVINO
GenAI and llama.cpp come with `pip install --no-deps -r requirements-peers.txt`, Optimum as `make test-optimum` installs
it. What is missing in the work folder, that of `benchmarks.qwen2_vl_2b`, is made first and kept.
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.measuring.command import report_command
from benchmarks.measuring.limits import image_operations, integer_throughput, memory_bandwidth, prompt_operations
from benchmarks.measuring.sides import Side
from benchmarks.peers.llama_cpp import FORMATS, LlamaCpp, write_model
from benchmarks.peers.sides import OpenVINOGenAI, PlainTransformers, Pydeper
from benchmarks.qwen2_vl_2b import DTYPES, fastest_dtype, photograph, prepare
from export.openvino.export import export_openvino_folder
from export.openvino.optimum import find_optimum, run_optimum
from export.openvino.source import link_published
from pydeper.runtime.target import Runtime
from pydeper.speed.machine import cpu
from training.evaluation.report import check_reports, format_table, write_report

NAME = "peers"
IMAGE_TOKENS = 256
PROMPT = 290  # tokens, those of the image among them
MEASURES = ("first token s", "image s", "prompt s", "tokens/s")
RELATIVE = ("first token s", "tokens/s")  # also given relative to the first side

Start = tuple[Callable[..., Any], tuple[Any, ...]]
"""What is loaded in a side's process, and of what."""


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/qwen2_vl_2b"), help="what is made and kept")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64, help="written after the first (default: %(default)s)")
    parser.add_argument(
        "--sides",
        nargs="+",
        choices=list(SIDES),
        metavar="SIDE",
        help="some of them (default: all, transformers in the type that is fastest here)",
    )
    parser.add_argument("--optimum-python", metavar="PYTHON", help="see `python -m export vlm`")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help=f"also write {NAME}.json and {NAME}.md there")
    options = parser.parse_args()
    if options.report is not None:
        check_reports(options.report, [NAME])
    prepare(options.work, "int4", bundle=False)
    sides = {name: SIDES[name](options) for name in options.sides or fastest_sides()}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    machine = []
    for number in range(options.rounds):
        machine.append((integer_throughput(options.threads), memory_bandwidth(options.threads)))
        for name, start in sides.items():
            rounds[name].append(measured(start, options.work, number))
            print(format_table({name: medians(rounds[name])}), flush=True)
    first = next(iter(rounds.values()))
    rows = {name: medians(found) | relative(found, first) for name, found in rounds.items()}
    facts = {
        "cpu": cpu(),
        "threads": options.threads,
        "model": "Qwen2-VL-2B, true sizes, random weights",
        "picture": f"448×448, {IMAGE_TOKENS} image tokens",
        "what the machine can do": limits(options.work, machine),
        "figures": f"medians of {options.rounds} rounds, each side alone in a new process",
        "relative": "to the first row in the same round",
        "command": report_command(
            "benchmarks.peers", parser, options, {"work": None, "threads": None, "optimum_python": None}
        ),
    }
    print(format_table(rows), "; ".join(f"{key}: {value}" for key, value in facts.items()), sep="\n")
    if options.report is not None:
        write_report(options.report, NAME, rows, title="Qwen2-VL-2B in other runtimes, on one machine", facts=facts)


def _pydeper(runtime: Runtime) -> Callable[[argparse.Namespace], Start]:
    def start(options: argparse.Namespace) -> Start:
        if runtime == "openvino":
            optimum_folder(options.work, options.optimum_python)
        return Pydeper, (options.work, runtime, options.threads, options.tokens)

    return start


def _openvino_genai(options: argparse.Namespace) -> Start:
    folder = optimum_folder(options.work, options.optimum_python)
    return OpenVINOGenAI, (folder, options.threads, options.tokens)


def _transformers(dtype: str) -> Callable[[argparse.Namespace], Start]:
    return lambda options: (PlainTransformers, (options.work, options.threads, options.tokens, dtype))


def _llama_cpp(name: str) -> Callable[[argparse.Namespace], Start]:
    def start(options: argparse.Namespace) -> Start:
        file = write_model(options.work / "standin", options.work / "gguf", name)
        return LlamaCpp, (file, options.threads, PROMPT, options.tokens)

    return start


SIDES: Mapping[str, Callable[[argparse.Namespace], Start]] = MappingProxyType(
    {
        "pydeper, ONNX Runtime": _pydeper("onnxruntime"),
        "pydeper, OpenVINO": _pydeper("openvino"),
        "OpenVINO GenAI": _openvino_genai,
        **{f"transformers, {dtype}": _transformers(dtype) for dtype in DTYPES},
        **{f"llama.cpp, {name}": _llama_cpp(name) for name in FORMATS},
    }
)
"""How each side is started; what it reads is made where it is missing."""


def fastest_sides() -> list[str]:
    """All sides, with transformers in the one type that is fastest here, as somebody would run it who knows."""
    slower = {f"transformers, {dtype}" for dtype in DTYPES} - {f"transformers, {fastest_dtype()}"}
    return [name for name in SIDES if name not in slower]


def optimum_folder(work: Path, python: str | None) -> Path:
    """What Optimum exports in 4 bits; also put where pydeper looks for it."""
    folder = work / "optimum-int4"
    if not folder.exists():
        building = work / "optimum-int4.building"
        run_optimum(find_optimum(python), link_published(work / "standin", None, work / "published"), building, "int4")
        building.rename(folder)
    if not (work / "int4" / "openvino_int4").exists():
        export_openvino_folder(work / "standin", work / "int4", "int4", from_optimum=folder)
    return folder


def measured(start: Start, work: Path, number: int) -> dict[str, float]:
    """Figures of a side that is alone, after a description to warm up."""
    load, arguments = start
    with Side(load, *arguments) as side:
        side.call("describe", photograph(work, 400 + number))
        figures: dict[str, float] = side.call("describe", photograph(work, 500 + number))
    return figures


def limits(work: Path, rounds: Sequence[tuple[float, float]]) -> str:
    """The machine's products and memory, beside what the picture, the prompt and a token of pydeper's take of them."""
    products, bandwidth = (statistics.median(row) for row in zip(*rounds, strict=True))
    config = json.loads((work / "standin" / "config.json").read_text(encoding="utf-8"))
    image = image_operations(config["vision_config"], config["hidden_size"], IMAGE_TOKENS) / 1e12
    prompt = prompt_operations(config, PROMPT) / 1e12
    token = sum(file.stat().st_size for file in (work / "int4").glob("decoder_model_merged*_data")) / 1e9
    return (
        f"{products:.2f}·10¹² operations a second in one large product of 8-bit integers, and the picture takes "
        f"{image:.2f}·10¹², the prompt {prompt:.2f}·10¹²; memory is read at {bandwidth:.1f} GB/s, and a token of "
        f"pydeper's 4-bit decoder reads {token:.2f} GB"
    )


def medians(rounds: list[dict[str, float]]) -> dict[str, float | None]:
    """Of every measure; None of what a side does not tell."""
    return {name: statistics.median(row[name] for row in rounds) if name in rounds[0] else None for name in MEASURES}


def relative(rounds: Sequence[Mapping[str, float]], first: Sequence[Mapping[str, float]]) -> dict[str, float | None]:
    """Medians of what a side takes relative to the first one in the same round: a slower minute slows both."""
    return {
        f"{name.removesuffix(' s')}, relative": statistics.median(
            own[name] / other[name] for own, other in zip(rounds, first, strict=True)
        )
        if name in rounds[0] and name in first[0]
        else None
        for name in RELATIVE
    }


if __name__ == "__main__":
    main()
