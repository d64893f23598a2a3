"""`python -m training shard`: packs samples and their images in tar shards."""

import argparse
from pathlib import Path

from training.cli.data.prepare import add_check_durations


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-command's arguments."""
    parser.add_argument("samples", help="a JSON Lines file of samples")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets the shards")
    parser.add_argument("--shard-mib", type=int, default=128, metavar="MIB", help="of a shard (default: %(default)s)")
    parser.add_argument("--skip-broken-images", type=int, default=0, metavar="N", help="that many may be unreadable")
    add_check_durations(parser)


def run(options: argparse.Namespace) -> None:
    """Runs the sub-command."""
    from training.data.shards import check_free, read_samples, write_shards

    check_free(options.out)
    samples = read_samples(options.samples, check_durations=options.check_durations)
    written = write_shards(
        samples, options.out, shard_mib=options.shard_mib, skip_broken_images=options.skip_broken_images
    )
    broken = f"; {written.broken} images cannot be read, and were left out" if written.broken else ""
    print(f"{options.out}: {written.samples} samples of {written.images} images in {written.shards} shards{broken}")
