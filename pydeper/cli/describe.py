"""`pydeper describe`: images as one person, or several, would describe them."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import pydeper
from pydeper.cli import bulk
from pydeper.cli.command import add_command, add_model, add_runtime, add_servers, written
from pydeper.cli.progress import progress_bar
from pydeper.errors import InvalidArgumentError
from pydeper.files.atomic import atomic_path, check_output

_STDIN = "-"

Person = tuple[str | None, "pydeper.Persona | None"]
"""What somebody is called, and their persona; nobody in particular is (None, None)."""


def add_to(commands: Any) -> None:
    """Adds the sub-command."""
    describe = add_command(commands, "describe", run, "describe images as one person, or several, would")
    describe.add_argument(
        "images", nargs="+", metavar="IMAGE", help="a file, a folder of images, or - for an image on stdin"
    )
    describe.add_argument(
        "--persona",
        action="append",
        default=[],
        metavar="FILE",
        help="give it again for more people; without it, the vision-language model alone",
    )
    describe.add_argument(
        "--personas",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="several files at once, or folders of them (*.safetensors)",
    )
    add_model(describe)
    add_runtime(describe)
    add_servers(describe)
    describe.add_argument(
        "--precision", metavar="P", help="of the model: fp32, fp16, int8 or int4 (default: the model's own choice)"
    )
    describe.add_argument("--style", default="description", help="which of the model's prompts (default: %(default)s)")
    describe.add_argument("--stream", action="store_true", help="print the text while it is written")
    describe.add_argument("--json", action="store_true", help="one line of JSON a description: image, persona, text")
    describe.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="write there instead of on stdout; a file that ends in .jsonl or .parquet is gone on with when the same "
        "command is given again, after Ctrl-C, kill -9 or with more images (exit status 1: some images failed)",
    )
    describe.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="images described together into .jsonl or .parquet (default: what is fast)",
    )
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


def run(options: argparse.Namespace) -> int:
    """Describes every image as everybody named would, and prints the descriptions."""
    if options.stream and (options.json or options.output):
        raise InvalidArgumentError("--stream: prints text while it is written; leave out --json and --output with it")
    images = _images(options.images)
    persona_files = [*options.persona, *_persona_files(options.personas)]
    people: list[Person] = [_person(path) for path in persona_files] or [(None, None)]
    if options.output is not None:
        check_output(options.output, [*(name for name, _ in images), *persona_files])
    resumable = options.output is not None and bulk.is_resumable(options.output)
    if resumable:
        bulk.check(options.output, [name for name, _ in images], [name for name, _ in people])
    elif options.batch_size is not None:
        raise InvalidArgumentError("--batch-size: is for an --output that ends in .jsonl or .parquet")
    model = pydeper.DeperModel.from_pretrained(
        options.model,
        runtime=options.runtime,
        device=options.device,
        threads=options.threads,
        precision=options.precision,
        vlm=options.vlm,
    )
    decoding = _decoding(options)
    if resumable:
        personas = {name: persona for name, persona in people if name is not None and persona is not None}
        return bulk.describe(
            model,
            [name for name, _ in images],
            personas,
            options.output,
            batch_size=options.batch_size,
            **decoding,
        )
    pairs = [(image, persona) for _, image in images for _, persona in people]
    names = [(image, person) for image, _ in images for person, _ in people]
    if options.stream:
        streams = [model.stream(image, persona, **decoding) for image, persona in pairs]  # which checks the options
        for number, (name, stream) in enumerate(zip(names, streams, strict=True)):
            _start(sys.stdout, number, name, many=len(names) > 1)
            for piece in stream:
                print(written(piece), end="", flush=True)
            print()
        return 0
    if len(pairs) == 1:
        texts = [model.describe(*pairs[0], **decoding)]
    else:
        with progress_bar("descriptions") as advance:
            texts = model.describe_batch(pairs, progress=advance, **decoding)
    if options.output is None:
        _write(sys.stdout, names, [written(text) for text in texts], as_json=options.json)
    else:
        with atomic_path(options.output) as temporary, temporary.open("w", encoding="utf-8") as file:
            _write(file, names, texts, as_json=options.json)
    return 0


def _decoding(options: argparse.Namespace) -> "pydeper.DescribeOptions":  # a name that is loaded when it is needed
    return {
        "style": options.style,
        "max_new_tokens": options.max_new_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "repetition_penalty": options.repetition_penalty,
        "seed": options.seed,
        "strength": options.strength,
    }


def _images(arguments: Sequence[str]) -> list[tuple[str, str | bytes]]:
    """Returns each image's name and what to open: a path, or what stdin holds; the images of folders one by one."""
    from pydeper.images import images_in

    images: list[tuple[str, str | bytes]] = []
    for argument in arguments:
        if argument == _STDIN:
            images.append((argument, sys.stdin.buffer.read()))
        elif Path(argument).is_dir():
            found = [(str(path), str(path)) for path in images_in(Path(argument))]
            if not found:
                raise InvalidArgumentError(f"{argument}: the folder holds no images; name another, or image files")
            images += found
        else:
            images.append((argument, argument))  # as it is: an address keeps its slashes
    return images


def _persona_files(arguments: Sequence[str]) -> list[str]:
    """Returns the persona files that are named, and those of the folders that are."""
    files: list[str] = []
    for argument in arguments:
        if not Path(argument).is_dir():
            files.append(argument)
        elif found := sorted(Path(argument).glob("*.safetensors")):
            files += map(str, found)
        else:
            raise InvalidArgumentError(f"{argument}: the folder holds no personas (*.safetensors); name another")
    return files


def _person(path: str) -> Person:
    persona = pydeper.Persona.load(path)
    return persona.name or Path(path).stem, persona


def _start(file: TextIO, number: int, name: tuple[str, str | None], *, many: bool) -> None:
    """Writes the heading of a description, where there are several."""
    image, person = name
    if many:
        who = "" if person is None else f", {person}"
        file.write(("\n" if number else "") + f"{image}{who}:\n")


def _write(file: TextIO, names: Sequence[tuple[str, str | None]], texts: Sequence[str], *, as_json: bool) -> None:
    for number, (name, text) in enumerate(zip(names, texts, strict=True)):
        if as_json:
            line = {"image": name[0], "persona": name[1], "description": text}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        else:
            _start(file, number, name, many=len(names) > 1)
            file.write(text + "\n")
