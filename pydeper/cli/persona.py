"""`pydeper persona`: make a persona, look at one, share it on the Hugging Face Hub."""

import argparse
import sys
from pathlib import Path
from typing import Any

import pydeper
from pydeper.cli.command import add_command, add_model
from pydeper.cli.progress import progress_bar
from pydeper.files.atomic import check_output, is_stream
from pydeper.persona.file import check_replaceable


def add_to(commands: Any) -> None:
    """Adds the sub-command with its own sub-commands."""
    persona = commands.add_parser("persona", help="make a persona, look at one, or share it on the Hugging Face Hub")
    of_persona = persona.add_subparsers(title="commands", required=True, metavar="COMMAND")
    create = add_command(of_persona, "create", _create, "make a persona from a few samples of one person")
    create.add_argument("samples", metavar="SAMPLES", help="samples of one person (JSON Lines)")
    create.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="the persona file to write")
    create.add_argument("--name", help="what to call the person (default: the samples' subject)")
    create.add_argument(
        "--no-check-durations",
        dest="check_durations",
        action="store_false",
        help="take fixations that last below 0.01 s or above 10 s (median), which is another unit else",
    )
    add_model(create)
    show = add_command(of_persona, "show", _show, "tell what a persona file holds")
    show.add_argument("file", metavar="FILE")
    _add_personas_on_the_hub(of_persona)


def _add_personas_on_the_hub(of_persona: Any) -> None:
    listing = add_command(of_persona, "list", _list, "tell which personas a Hub repository holds")
    fetch = add_command(of_persona, "fetch", _fetch, "get a persona from a Hub repository")
    fetch.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="the persona file to write")
    push = add_command(of_persona, "push", _push, "publish a persona in a Hub repository")
    push.add_argument("file", metavar="FILE")
    delete = add_command(of_persona, "delete", _delete, "remove a persona from a Hub repository (its history keeps it)")
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


def _create(options: argparse.Namespace) -> int:
    check_output(options.out, [options.samples])
    check_replaceable(options.out)
    samples = pydeper.read_samples(options.samples, check_durations=options.check_durations)
    with progress_bar("samples") as advance:
        persona = pydeper.Persona.from_samples(samples, model=options.model, name=options.name, progress=advance)
    return _saved(persona, options.out)


def _saved(persona: "pydeper.Persona", out: Path) -> int:
    """Saves a persona and says so: on stderr where the persona itself may go to stdout."""
    persona.save(out)
    print(f"{out}: {persona!r}", file=sys.stderr if is_stream(out) else sys.stdout)
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
    check_replaceable(options.out)
    persona = pydeper.Persona.from_pretrained(options.repo_id, options.name, revision=options.revision)
    return _saved(persona, options.out)


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
