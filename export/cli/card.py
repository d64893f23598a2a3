"""`python -m export card`: a bundle's model card, written anew."""

import argparse
from pathlib import Path

from export.bundle.assemble import write_card
from export.bundle.card import DATASETS, EVALUATION, LANGUAGE, add_facts
from pydeper.publish import IMAGE_ENCODER_LICENCE


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    does = "write README.md anew from config.json and what the bundle holds, and then the manifest"
    parser = commands.add_parser("card", help=does, description=does)
    parser.add_argument("bundle", type=Path, help="the folder")
    parser.add_argument("--evaluation", type=Path, metavar="JSON", help="a report of the evaluation, to go along")
    parser.add_argument("--image-encoder-licence", type=Path, metavar="TEXT", help="its licence's text, to go along")
    parser.add_argument(
        "--dataset", action="append", metavar="ID", help="a data set it was trained on; may be repeated"
    )
    parser.add_argument("--language", action="append", metavar="CODE", help="of the descriptions (en); may be repeated")
    parser.set_defaults(execute=run)


def run(options: argparse.Namespace) -> str:
    """Runs the command; returns what it prints."""
    facts = {DATASETS: options.dataset, LANGUAGE: options.language}
    files = {EVALUATION: options.evaluation, IMAGE_ENCODER_LICENCE: options.image_encoder_licence}
    add_facts(
        options.bundle,
        {name: value for name, value in facts.items() if value},
        {name: path for name, path in files.items() if path},
    )
    return str(write_card(options.bundle))
