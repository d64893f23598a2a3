"""`python -m tests.support.docs.outputs [PAGE ...]`: writes what the blocks of pages print today into the pages.

For when something that many pages show has changed, such as the built-in model. Lines that still hold are kept with
their dots. An output that has other lines than before and dots among them is left to a person, and named.
"""

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.docs.pages import Block, Reader, environment_of, matches, name, read, ways


def main(pages: Sequence[str]) -> int:
    """Rewrites these pages, or all; returns how many places are left to a person."""
    wanted = {Path(page).resolve() for page in pages}
    left = 0
    for way in ways():
        if wanted and wanted.isdisjoint(way):
            continue
        with tempfile.TemporaryDirectory() as folder, environment_of(way, Path(folder)) as environment:
            writer = Writer(Path(folder), **environment)
            for page in way:
                left += writer.rewrite(page)
    return left


def renewed(shown: str, printed: str) -> str | None:
    """An output as it is today; None where only a person can say what of it is to be shown.

    Args:
        shown: What a page shows; … stands for anything.
        printed: What is printed today.
    """
    if "…" not in shown:
        return printed.strip() + "\n"
    old, new = shown.strip().splitlines(), printed.strip().splitlines()
    if len(old) != len(new):
        return None
    return "\n".join(line if matches(line, fresh) else fresh for line, fresh in zip(old, new, strict=True)) + "\n"


def _replaced(page: str, line: int, shown: str, fresh: str) -> str:
    """A page with another output in the block whose fence opens in this line, or below it."""
    lines = page.splitlines(keepends=True)
    fence = lines[line - 1]
    indent = fence[: len(fence) - len(fence.lstrip(" "))]
    shown, fresh = (re.sub("^(?=.)", indent, text, flags=re.M) for text in (shown, fresh))
    head, rest = "".join(lines[:line]), "".join(lines[line:])
    assert shown in rest, f"line {line}: {shown}"
    return head + rest.replace(shown, fresh, 1)


class Writer(Reader):
    """A reader who notes what has changed, and corrects the page."""

    def rewrite(self, page: Path) -> int:
        """Follows a page to its end and writes what has changed; returns how many places are left to a person."""
        self._changes: list[tuple[int, str, str]] = []
        self._left: list[str] = []
        try:
            self.follow(page)
        except AssertionError as error:  # a block failed: those behind it would fail as well
            self._left.append(str(error))
        text = read(page)
        for line, shown, fresh in reversed(self._changes):
            text = _replaced(text, line, shown, fresh)
        page.write_text(text, encoding="utf-8")
        report = [f"{name(page)}: {len(self._changes)} outputs written, {len(self._left)} left", *self._left]
        sys.stdout.write("\n    ".join(report).replace("\n\n", "\n") + "\n")
        return len(self._left)

    def do(self, block: Block, place: str) -> None:
        """See `Reader`."""
        self._line = block.line
        super().do(block, place)

    def compare(self, shown: str | None, printed: str, place: str) -> None:
        """See `Reader`."""
        if shown is None or matches(shown, printed):
            return
        fresh = renewed(shown, printed)
        if fresh is None:
            self._left.append(f"{place}\n--- shown\n{shown}\n--- printed\n{printed}")
        else:
            self._changes.append((self._line, shown, fresh))


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
