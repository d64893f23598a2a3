"""What a machine describes at the real size, by how many descriptions share a step: `python -m benchmarks.capacity`.

Qwen2-VL-2B of the true configuration with random weights, as `benchmarks.qwen2_vl_2b` makes it. Every description is of
another photograph, for one of eight personas, and has the same number of tokens. The numbers of descriptions at a time
come in turn; medians are printed.
"""

import argparse
import itertools
import os
import statistics
import time
from pathlib import Path

from benchmarks.measuring.command import report_command
from benchmarks.qwen2_vl_2b import TOKENS, Ours, photograph, prepare
from pydeper.model.requests import DescriptionRequest
from pydeper.speed.machine import cpu
from training.evaluation.report import Figure, check_reports, format_table, write_report

NAME = "capacity"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/qwen2_vl_2b"), help="what is made and kept")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--images", type=int, default=16, help="described in a round (default: %(default)s)")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4, 8, 16], metavar="N", help="that share a step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--report", type=Path, metavar="FOLDER", help=f"also write {NAME}.json and {NAME}.md there")
    options = parser.parse_args()
    if options.report is not None:
        check_reports(options.report, [NAME])
    prepare(options.work, "int4")
    images = [photograph(options.work, 300 + number) for number in range(options.images)]
    ours = Ours(options.work / "bundle", options.threads)
    seconds: dict[int, list[float]] = {at_once: [] for at_once in options.at_once}
    for _ in range(options.rounds):
        for at_once, known in seconds.items():
            known.append(describe_all(ours, images, at_once) / len(images))
            print(f"{at_once} at a time: {known[-1]:.2f} s each", flush=True)
    rows = {
        f"{at_once} at a time": figures_of(statistics.median(known), options.threads)
        for at_once, known in seconds.items()
    }
    print(format_table(rows))
    if options.report is not None:
        facts = {
            "cpu": cpu(),
            "threads": options.threads,
            "tokens of a description": TOKENS,
            "pictures of a round": options.images,
            "rounds": options.rounds,
            "command": report_command("benchmarks.capacity", parser, options, {"work": None}),
        }
        write_report(options.report, NAME, rows, title="What a machine describes at the real size", facts=facts)


def figures_of(seconds: float, threads: int) -> dict[str, Figure]:
    """What follows from the seconds of one description."""
    return {
        "seconds each": seconds,
        "an hour": 3600 / seconds,
        "core-seconds each": seconds * threads,
        "core-hours a million": seconds * threads * 1e6 / 3600,
    }


def describe_all(ours: Ours, images: list[Path], at_once: int) -> float:
    """Returns the seconds of describing all images, so many at a time, from the files on."""
    ours.model.clear_image_cache()
    requests: list[DescriptionRequest] = [
        (image, ours.personas[number % len(ours.personas)], {"max_new_tokens": TOKENS})
        for number, image in enumerate(images)
    ]
    joining = iter(requests[at_once:])
    began = time.perf_counter()
    for _ in ours.model.stream_batch(
        requests[:at_once], more=lambda running: [*itertools.islice(joining, at_once - running)]
    ):
        pass
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
