"""A bar while something takes long: on a terminal, never in a pipe or a file."""

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function to call with how much is done, and of how much; the bar goes when the block ends.

    Args:
        what: What is counted, such as "descriptions".
    """
    from tqdm import tqdm

    with tqdm(unit=f" {what}", unit_scale=False, leave=False, delay=0.5, disable=None, file=sys.stderr) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance
