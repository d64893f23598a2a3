"""The command `pydeper`: demo; persona create, show, list, fetch, push, delete; describe; doctor.

Exit status: 0; 1 where `doctor` finds something wrong; 2 for a mistake in what was asked for, with one message on
stderr; 130 after Ctrl-C; 141 where the reader of a pipe has gone.
"""

import argparse
import collections
import contextlib
import os
import platform
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import pydeper
from pydeper.errors import PydeperError
from pydeper.untrusted import legible

_DEMO = "demo"
_LIBRARIES = ("attrs", "huggingface_hub", "numpy", "pillow", "safetensors", "tokenizers")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        with _plain_warnings():
            status: int = options.run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Python flushes stdout once more at its end, and would complain there.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130
    except (PydeperError, OSError) as error:
        print(f"pydeper: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pydeper", description=pydeper.__doc__.splitlines()[0] if pydeper.__doc__ else ""
    )
    parser.add_argument("--version", action="version", version=f"pydeper {pydeper.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = _command(commands, "demo", _demo, "describe one drawn scene as two people would, with the built-in model")
    demo.add_argument("--out", type=Path, default=Path("pydeper-demo"), metavar="FOLDER", help="default: %(default)s")
    demo.add_argument("--model", default="tiny", metavar="MODEL", help="another model with a demo (default: tiny)")

    persona = commands.add_parser("persona", help="make a persona, look at one, or share it on the Hugging Face Hub")
    of_persona = persona.add_subparsers(title="commands", required=True, metavar="COMMAND")
    create = _command(of_persona, "create", _create, "make a persona from a few samples of one person")
    create.add_argument("samples", type=Path, metavar="SAMPLES", help="samples of one person (JSON Lines)")
    create.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="the persona file to write")
    create.add_argument("--name", help="what to call the person (default: the samples' subject)")
    _add_model(create)
    show = _command(of_persona, "show", _show, "tell what a persona file holds")
    show.add_argument("file", type=Path, metavar="FILE")
    _add_personas_on_the_hub(of_persona)

    describe = _command(commands, "describe", _describe, "describe images as one person, or several, would")
    describe.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="each has a heading if there are more")
    describe.add_argument(
        "--persona",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="give it again for more people; without it, the vision-language model alone",
    )
    _add_model(describe)
    describe.add_argument(
        "--precision", metavar="P", help="of the model: fp32, fp16, int8 or int4 (default: the model's own choice)"
    )
    describe.add_argument("--style", default="description", help="which of the model's prompts (default: %(default)s)")
    describe.add_argument("--stream", action="store_true", help="print the text while it is written")
    describe.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="default: %(default)s")
    describe.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 (default) does not sample")
    describe.add_argument("--top-p", type=float, default=1.0, metavar="P", help="of sampling; default: %(default)s")
    describe.add_argument(
        "--repetition-penalty", type=float, default=1.0, metavar="X", help="1 (default) none, above 1 repeats less"
    )
    describe.add_argument("--seed", type=int, metavar="N", help="makes sampling repeatable")
    describe.add_argument(
        "--strength", type=float, default=1.0, metavar="X", help="0 no persona, 1 (default) as trained, above 1 more"
    )

    _command(commands, "doctor", _doctor, "check what is installed, and say what to do about what is not right")
    return parser


def _add_personas_on_the_hub(of_persona: Any) -> None:
    listing = _command(of_persona, "list", _list, "tell which personas a Hub repository holds")
    fetch = _command(of_persona, "fetch", _fetch, "get a persona from a Hub repository")
    fetch.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="the persona file to write")
    push = _command(of_persona, "push", _push, "publish a persona in a Hub repository")
    push.add_argument("file", type=Path, metavar="FILE")
    delete = _command(of_persona, "delete", _delete, "remove a persona from a Hub repository (its history keeps it)")
    for command in (listing, fetch, push, delete):
        command.add_argument("repo_id", metavar="ORG/NAME", help="the repository")
        command.add_argument("--revision", metavar="REV", help="a branch (of list and fetch, also a tag or commit)")
    for command in (fetch, delete):
        command.add_argument("name", help="the persona's name there")
    push.add_argument("--name", help="what to call it there (default: the persona's own name)")
    push.add_argument("--private", action="store_true", help="make the repository private, or see to it that it is")
    consent = push.add_mutually_exclusive_group(required=True)
    consent.add_argument("--consent", metavar="TEXT", help="how the person agreed to this, for the repository's card")
    consent.add_argument("--synthetic", action="store_true", help="there is no such person")


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], does: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=does, description=does[0].upper() + does[1:] + "."
    )
    command.set_defaults(run=run)
    return command


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model", metavar="MODEL", help="a Hub id, a folder, or 'tiny' (default: $PYDEPER_MODEL, else 'tiny')"
    )


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Shows warnings as messages of this command, without the line of code they come from."""

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
        line: str | None = None,
    ) -> None:  # fmt: skip
        print(f"pydeper: warning: {legible(str(message))}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _create(options: argparse.Namespace) -> int:
    samples = pydeper.read_samples(options.samples)
    persona = pydeper.Persona.from_samples(samples, model=options.model, name=options.name)
    print(f"{persona.save(options.out)}: {persona!r}")
    return 0


def _show(options: argparse.Namespace) -> int:
    persona = pydeper.Persona.load(options.file)
    for what, value in (
        ("name", persona.name or "(none)"),
        ("samples", persona.num_samples),
        ("model", persona.model_id + (f" at {persona.model_revision}" if persona.model_revision else "")),
        ("persona encoder", persona.encoder_fingerprint),
        ("created", f"{persona.created.isoformat(sep=' ')} by pydeper {persona.pydeper_version}"),
    ):
        print(f"{what + ':':<17}{value}")
    return 0


def _list(options: argparse.Namespace) -> int:
    for published in pydeper.list_personas(options.repo_id, revision=options.revision):
        consent = "synthetic" if published.synthetic else f"consent: {published.consent}"
        print(f"{published.name}  {published.num_samples} samples, {published.model_id}; {consent}")
    return 0


def _fetch(options: argparse.Namespace) -> int:
    persona = pydeper.Persona.from_pretrained(options.repo_id, options.name, revision=options.revision)
    print(f"{persona.save(options.out)}: {persona!r}")
    return 0


def _push(options: argparse.Namespace) -> int:
    address = pydeper.Persona.load(options.file).push_to_hub(
        options.repo_id,
        consent=options.consent,
        synthetic=options.synthetic,
        name=options.name,
        private=options.private,
        revision=options.revision,
    )
    print(address)
    return 0


def _delete(options: argparse.Namespace) -> int:
    print(pydeper.delete_persona(options.repo_id, options.name, revision=options.revision))
    return 0


def _describe(options: argparse.Namespace) -> int:
    people: list[tuple[str, pydeper.Persona | None]] = []
    for path in options.persona:
        persona = pydeper.Persona.load(path)
        people.append((f", {persona.name or path.stem}", persona))
    people = people or [("", None)]
    model = pydeper.DeperModel.from_pretrained(options.model, precision=options.precision)
    decoding: pydeper.DescribeOptions = {
        "style": options.style,
        "max_new_tokens": options.max_new_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "repetition_penalty": options.repetition_penalty,
        "seed": options.seed,
        "strength": options.strength,
    }
    pairs = [(image, persona) for image in options.images for _, persona in people]
    described: Iterable[Iterable[str]]
    if options.stream:
        described = [model.stream(image, persona, **decoding) for image, persona in pairs]
    elif len(pairs) > 1:
        described = [[text] for text in model.describe_batch(pairs, **decoding)]
    else:
        described = [[model.describe(*pairs[0], **decoding)]]
    headings = [f"{image}{who}:\n" for image in options.images for who, _ in people] if len(pairs) > 1 else [""]
    for number, (heading, pieces) in enumerate(zip(headings, described, strict=True)):
        print(end="\n" * (number > 0) + heading)
        for piece in pieces:
            print(_written(piece), end="", flush=True)
        print()
    return 0


def _demo(options: argparse.Namespace) -> int:
    from pydeper.bundle.bundle import open_bundle

    opened = open_bundle(options.model)
    folder = opened.folder / _DEMO
    scene = folder / "scene.png"
    if not scene.is_file():
        raise pydeper.BundleError(f"{folder}: model {opened.model_id!r} has no demo; use --model tiny")
    model = pydeper.DeperModel(opened)
    viewers = {path.stem: pydeper.read_samples(path) for path in sorted(folder.glob("*.jsonl"))}
    personas = {
        name: pydeper.Persona.from_samples(samples, model=model, name=name) for name, samples in viewers.items()
    }
    seen = model.encode_image(scene)

    print(f"The scene: {scene}\n")
    for name, text in zip(viewers, model.describe_each(seen, list(personas.values())), strict=True):
        print(
            f"{name}, known from {len(viewers[name])} samples, {_way_of_looking(viewers[name])}:\n{_indented(text)}\n"
        )
    print(f"Nobody in particular (no persona):\n{_indented(model.describe(seen))}\n")
    options.out.mkdir(parents=True, exist_ok=True)
    picture = _draw_looking(viewers, options.out / "looking.png")
    print(f"How they looked at one picture each ({', '.join(viewers)}, from left to right): {picture}")
    return 0


def _written(text: str) -> str:
    """Returns what a model wrote; for a terminal without what would command it, for a pipe to the letter."""
    return legible(text) if sys.stdout.isatty() else text


def _indented(text: str) -> str:
    return textwrap.fill(_written(text), width=96, initial_indent="    ", subsequent_indent="    ")


def _way_of_looking(samples: Sequence["pydeper.Sample"]) -> str:
    """Says in words where somebody's eyes went first, how often they stopped, and for how long."""
    trajectories = [sample.trajectory for sample in samples if sample.trajectory is not None]
    if not trajectories:
        return "whose eyes were not followed"
    firsts = collections.Counter(_place(trajectory.fixations[0].box) for trajectory in trajectories)
    place, times = firsts.most_common(1)[0]
    stops = sum(map(len, trajectories))
    seconds = sum(fixation.duration for trajectory in trajectories for fixation in trajectory)
    return (
        f"who looked first at the {place} in {times} of {len(trajectories)} pictures and stopped "
        f"{stops / len(trajectories):.1f} times a picture, for {seconds / stops:.2f} s each"
    )


def _place(box: tuple[float, float, float, float]) -> str:
    x1, y1, x2, y2 = box
    column = ("left", "middle", "right")[min(int((x1 + x2) / 2 * 3), 2)]
    row = ("upper", "middle", "lower")[min(int((y1 + y2) / 2 * 3), 2)]
    return "centre" if row == column else f"{row} {column}"


def _draw_looking(viewers: dict[str, list["pydeper.Sample"]], path: Path) -> Path:
    from PIL import Image

    from pydeper.samples.overlay import save_picture

    plots = [
        next(sample for sample in samples if sample.trajectory is not None).plot()
        for samples in viewers.values()
        if any(sample.trajectory is not None for sample in samples)
    ]
    if not plots:
        raise pydeper.InvalidSampleError("the demo's samples have no trajectories to draw; reinstall pydeper")
    sheet = Image.new("RGB", (sum(plot.width for plot in plots), max(plot.height for plot in plots)), "white")
    for i, plot in enumerate(plots):
        sheet.paste(plot, (sum(before.width for before in plots[:i]), 0))
    save_picture(sheet, path)
    return path


def _doctor(_: argparse.Namespace) -> int:
    findings = 0
    for checks in (_check_libraries, _check_runtime, _check_cache, _check_default_model):
        for sound, message in checks():
            print(f"{'ok  ' if sound else 'FIX '} {message}")
            findings += not sound
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
    from pydeper.runtime import devices

    builds = devices.installed_runtimes()
    try:
        available = devices.available_providers()
    except PydeperError as error:
        yield False, str(error)
        return
    yield True, f"{' and '.join(f'{name} {version}' for name, version in builds.items()) or 'ONNX Runtime'}"
    if "onnxruntime-gpu" in builds and "CUDAExecutionProvider" not in available:
        yield False, "onnxruntime-gpu has no CUDAExecutionProvider: `pip install --force-reinstall onnxruntime-gpu`"
    yield True, f"execution providers: {', '.join(available)}"


def _check_cache() -> Iterator[tuple[bool, str]]:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    if existing.is_dir() and os.access(existing, os.W_OK):
        yield True, f"cache of the Hugging Face Hub: {cache}{'' if cache.exists() else ' (not there yet)'}"
    else:
        yield False, f"cache of the Hugging Face Hub: {existing} is not a folder you may write to: set HF_HOME to one"


def _check_default_model() -> Iterator[tuple[bool, str]]:
    from pydeper.bundle.bundle import open_bundle
    from pydeper.bundle.default import DEFAULT_MODEL_VARIABLE

    named = os.environ.get(DEFAULT_MODEL_VARIABLE, "").strip()
    try:
        opened = open_bundle(named or "tiny", local_files_only=True)
        report = pydeper.DeperModel(opened).report()
    except PydeperError as error:
        yield False, f"default model: {error}"
        return
    how = (
        f"from ${DEFAULT_MODEL_VARIABLE}" if named else f"built in, for drawn scenes only: set {DEFAULT_MODEL_VARIABLE}"
    )
    told = textwrap.indent(str(report), " " * 9)
    yield True, f"default model: {opened.model_id} ({how}), in {opened.folder}; loaded:\n{told}"
