"""`python -m export push`: a bundle to the Hugging Face Hub, or what that would be."""

import argparse
from pathlib import Path

from pydeper import publish


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    does = "verify a bundle and publish it on the Hugging Face Hub, in one commit"
    parser = commands.add_parser(
        "push",
        help=does,
        description=does,
        epilog="The token is that of `hf auth login`, or HF_TOKEN. Interrupted, it goes on when it is called again.",
    )
    parser.add_argument("bundle", type=Path, help="the folder")
    parser.add_argument("repo_id", metavar="ORG/NAME", help="the repository, made where it does not exist")
    parser.add_argument("--private", action="store_true", help="make it private, or see to it that it is")
    parser.add_argument("--revision", metavar="BRANCH", help="publish on another branch than main")
    parser.add_argument("--message", help="what the commit says")
    parser.add_argument("--dry-run", action="store_true", help="tell what would go up, and send nothing")
    parser.set_defaults(execute=run)


def run(options: argparse.Namespace) -> str:
    """Runs the command; returns what it prints.

    Raises:
        BundleError: See `pydeper.publish.push`.
    """
    if options.dry_run:
        return str(publish.plan(options.bundle, options.repo_id, revision=options.revision))
    return publish.push(
        options.bundle,
        options.repo_id,
        private=options.private,
        revision=options.revision,
        message=options.message,
    )
