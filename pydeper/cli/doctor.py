"""`pydeper doctor`: what is installed, and what to do about what is not right."""

import argparse
import json
import os
import platform
import textwrap
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pydeper
from pydeper.cli.benchmark import benchmark_data, benchmark_text, run_benchmark
from pydeper.cli.command import add_command, add_servers
from pydeper.errors import PydeperError

_LIBRARIES = ("attrs", "huggingface_hub", "numpy", "pillow", "safetensors", "tokenizers")


def add_to(commands: Any) -> None:
    """Adds the sub-command."""
    doctor = add_command(commands, "doctor", run, "check what is installed, and say what to do about what is not right")
    add_servers(doctor)
    doctor.add_argument(
        "--benchmark",
        nargs="?",
        const="",
        metavar="MODEL",
        help="measure a model as well: time to the first token, tokens a second and memory on every runtime that is "
        "installed, and say which settings to take; about a minute (default: $PYDEPER_MODEL, else 'tiny')",
    )
    doctor.add_argument("--json", action="store_true", help="one object of JSON: checks, to_fix, benchmark")


def run(options: argparse.Namespace) -> int:
    """Runs all checks; returns 1 where one found something to fix."""
    checks: list[dict[str, object]] = []
    for each in (_check_libraries(), _check_runtime(), _check_cache(), _check_default_model(options.vlm)):
        for sound, message in each:
            checks.append({"ok": sound, "message": message})
            if not options.json:
                print(f"{'ok  ' if sound else 'FIX '} {message}", flush=True)
    comparison = None if options.benchmark is None else run_benchmark(options.benchmark or _default_model()[0])
    if comparison and not options.json:
        print(f"\n{benchmark_text(comparison)}")
    findings = sum(not check["ok"] for check in checks)
    if options.json:
        measured = {"benchmark": benchmark_data(comparison)} if comparison else {}
        print(json.dumps({"checks": checks, "to_fix": findings, **measured}, indent=2))
    else:
        print("\nAll is well." if not findings else f"\n{findings} to fix.")
    return 1 if findings else 0


def _check_libraries() -> Iterator[tuple[bool, str]]:
    yield True, f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield True, f"pydeper {pydeper.__version__} in {Path(pydeper.__file__).parent}"
    for name in _LIBRARIES:
        try:
            yield True, f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield False, f"{name} is missing: `pip install --force-reinstall pydeper`"


def _check_runtime() -> Iterator[tuple[bool, str]]:

    from pydeper.runtime.devices import installed_runtimes
    from pydeper.runtime.target import choose_target

    installed = installed_runtimes()
    try:
        target = choose_target()
        available = target.available_devices()
    except PydeperError as error:
        yield False, str(error)
        return
    yield True, f"runtime: {target.explain_runtime()}"
    if others := [f"{name} {version}" for name, version in installed.items() if target.runtime not in name]:
        yield True, f"also installed: {', '.join(others)}"
    if target.runtime == "onnxruntime" and "onnxruntime-gpu" in installed and "CUDAExecutionProvider" not in available:
        yield False, "onnxruntime-gpu has no CUDAExecutionProvider: `pip install --force-reinstall onnxruntime-gpu`"
    yield True, f"{'devices' if target.runtime == 'openvino' else 'execution providers'}: {', '.join(available)}"


def _check_cache() -> Iterator[tuple[bool, str]]:

    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    if existing.is_dir() and os.access(existing, os.W_OK):
        yield True, f"cache of the Hugging Face Hub: {cache}{'' if cache.exists() else ' (not there yet)'}"
    else:
        yield False, f"cache of the Hugging Face Hub: {existing} is not a folder you may write to: set HF_HOME to one"


def _check_default_model(servers: list[str] | None) -> Iterator[tuple[bool, str]]:

    from pydeper.bundle.bundle import open_encoder_bundle
    from pydeper.bundle.default import DEFAULT_MODEL_VARIABLE

    model, named = _default_model()
    try:
        opened = open_encoder_bundle(model, local_files_only=True)
        report = pydeper.DeperModel.from_pretrained(model, local_files_only=True, vlm=servers).report()
    except PydeperError as error:
        yield False, f"default model: {error}"
        return
    how = (
        f"from ${DEFAULT_MODEL_VARIABLE}" if named else f"built in, for drawn scenes only: set {DEFAULT_MODEL_VARIABLE}"
    )
    told = textwrap.indent(str(report), " " * 9)
    yield True, f"default model: {opened.model_id} ({how}), in {opened.folder}; loaded:\n{told}"


def _default_model() -> tuple[str, bool]:
    """Returns the default model, and whether the environment names it."""
    from pydeper.bundle.default import DEFAULT_MODEL_VARIABLE

    named = os.environ.get(DEFAULT_MODEL_VARIABLE, "").strip()
    return named or "tiny", bool(named)
