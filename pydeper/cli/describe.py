"""`pydeper describe`: images as one person, or several, would describe them."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pydeper
from pydeper.cli.command import add_command, add_model, written


def add_to(commands: Any) -> None:
    """Adds the sub-command."""
    describe = add_command(commands, "describe", run, "describe images as one person, or several, would")
    describe.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="each has a heading if there are more")
    describe.add_argument(
        "--persona",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="give it again for more people; without it, the vision-language model alone",
    )
    add_model(describe)
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


def run(options: argparse.Namespace) -> int:
    """Describes every image as everybody named would, and prints the descriptions."""
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
            print(written(piece), end="", flush=True)
        print()
    return 0
