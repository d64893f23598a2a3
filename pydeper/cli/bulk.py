"""The half of `pydeper describe` that writes files that can be gone on with."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from pydeper.cli.progress import progress_bar
from pydeper.errors import InvalidArgumentError
from pydeper.files.atomic import is_stream
from pydeper.untrusted import legible

if TYPE_CHECKING:
    from pydeper import DeperModel, DescribeOptions, Persona


def is_resumable(output: Path) -> bool:
    """Whether descriptions are added to this file from run to run, or written anew."""
    return output.suffix in (".jsonl", ".parquet") and not is_stream(output)


def check(output: Path, images: Sequence[str], people: Sequence[str | None]) -> None:
    """Refuses, before the model is loaded, what could not be gone on with.

    Args:
        output: The file.
        images: As they were named.
        people: What they are called.
    """
    from pydeper.bulk.output import check_suffix

    check_suffix(output)
    if "-" in images:
        raise InvalidArgumentError(
            f"-: {output} is a file to go on with after an interruption, and what stdin held would be gone then: save "
            "the image, or write to another kind of file"
        )
    if twice := [name for name, count in Counter(people).items() if count > 1]:
        raise InvalidArgumentError(
            f"--persona: two are called {twice[0]!r}, and {output} could not tell them apart: give one another name "
            "(`pydeper persona create --name`), or describe into two files"
        )


def describe(
    model: "DeperModel",
    images: Sequence[str],
    personas: "Mapping[str, Persona]",
    output: Path,
    *,
    batch_size: int | None,
    **options: "Unpack[DescribeOptions]",
) -> int:
    """Describes images into a file, says on stderr what came of it, and returns the exit status: 1 where some failed.

    The arguments are those of `pydeper.bulk.run.describe_to_file`.
    """
    from pydeper.bulk.run import describe_to_file

    try:
        with progress_bar("descriptions") as advance:
            done = describe_to_file(model, images, personas, output, batch_size=batch_size, progress=advance, **options)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"{output}: interrupted; the same command goes on") from stop
    rate = f" ({done.described / done.seconds:.1f} a second)" if done.described else ""
    before = f", {done.there_before} were there" if done.there_before else ""
    failed = f", {len(done.failed)} image{'s' if len(done.failed) > 1 else ''} failed:" if done.failed else ""
    print(f"{output}: {done.described} descriptions{rate}{before}{failed}", file=sys.stderr)
    for image, reason in done.failed.items():
        print(f"  {legible(image)}: {reason}", file=sys.stderr)
    return 1 if done.failed else 0
