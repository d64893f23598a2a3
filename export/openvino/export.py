"""Qwen2-VL to the files that OpenVINO reads, through Optimum, step by step, each checked against transformers."""

import shutil
from collections.abc import Callable
from pathlib import Path

import attrs

from export.graphs.parity import ParityError
from export.openvino.optimum import find_optimum, run_optimum
from export.openvino.parity import OpenVINOExport, compare
from export.openvino.source import link_published
from export.qwen2_vl.folder import describe_vlm
from export.qwen2_vl.source import load_model
from export.qwen2_vl.steps import run_steps, source_key, working_folder
from pydeper.bundle.config import Precision, VLMConfig
from pydeper.bundle.openvino_files import GRAPHS, LANGUAGE_MODEL, openvino_folder, weights_of
from pydeper.errors import BundleError
from training.outputs import output_folder


def export_openvino_folder(
    source: str | Path,
    out_dir: str | Path,
    precision: Precision,
    *,
    optimum_python: str | None = None,
    from_optimum: Path | None = None,
    image_size: tuple[int, int] | None = (448, 448),
    revision: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[VLMConfig, OpenVINOExport]:
    """Exports a Qwen2-VL for OpenVINO, with all that belongs to it.

    The graphs appear in the subfolder `openvino_PRECISION` of `out_dir` after they were compared with transformers;
    beside it `tokenizer.json` and `vlm.json`, as `export.qwen2_vl.folder.export_vlm_folder` writes them. The same
    folder may hold files for ONNX Runtime. Optimum's part is kept when the comparison is interrupted, and not done
    again.

    Args:
        source: A folder in the Hub's layout, or a Hub id.
        out_dir: The folder; it may hold other precisions already.
        precision: Of the language model's weights; what Optimum does with the rest is its own choice (8 bits with
            "int8" and "int4").
        optimum_python: See `export.openvino.optimum.find_optimum`.
        from_optimum: What `optimum-cli export openvino` wrote of the source already, to be taken over: then Optimum
            need not be installed.
        image_size: See `export_vlm_folder`.
        revision: Branch, tag or commit of a Hub id.
        progress: Is told of each step as it begins.

    Raises:
        BundleError: A file of the source cannot be had or read, or `from_optimum` lacks one.
        OptimumError: Optimum is not there, or failed.
        OutputError: The folder is the source, or holds files of a VLM that no export wrote.
        ParityError: The files do not give what transformers gives, or are of another precision.
        ValueError: The source is no Qwen2-VL.
    """
    out_dir, python = Path(out_dir), ""
    if from_optimum is None:
        python = find_optimum(optimum_python)
    elif not (from_optimum / LANGUAGE_MODEL).is_file():
        raise BundleError(
            f"{from_optimum}: has no {LANGUAGE_MODEL}; name a folder that `optimum-cli export openvino` wrote"
        )
    described = describe_vlm(source, out_dir, precision, image_size, revision)
    key = source_key(source, [described.commit, precision, str(from_optimum)])
    with output_folder(out_dir), working_folder(out_dir, key) as work:

        def graphs(folder: Path) -> dict[str, float]:
            written = from_optimum
            if written is None:
                written = folder / "optimum"
                run_optimum(python, link_published(source, described.commit, folder / "source"), written, precision)
            for name in (each for graph in GRAPHS for each in (graph, weights_of(graph))):
                if not (written / name).is_file():
                    raise BundleError(f"{written}: has no {name}; was it exported with --task image-text-to-text?")
                (shutil.copyfile if from_optimum else shutil.move)(written / name, folder / name)
            for leftover in (folder / "source", folder / "optimum"):
                shutil.rmtree(leftover, ignore_errors=True)
            return {}

        def parity(_: Path) -> dict[str, float]:
            model = load_model(source, described.commit)
            try:
                return attrs.asdict(compare(model, work / "graphs", described.config, precision))
            except BundleError as error:  # of another precision or model; it would fail in the same way again
                raise ParityError(str(error)) from error

        figures = run_steps(work, {"graphs": graphs, "parity": parity}, progress)
        place = out_dir / openvino_folder(precision)
        if place.exists():
            shutil.rmtree(place)
        (work / "graphs").replace(place)
        described.write(out_dir)
    return described.config, OpenVINOExport(**figures)
