"""How a text becomes words, for every metric that counts words or n-grams."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from typing import Literal

from pydeper.errors import InvalidArgumentError
from training.metrics.arguments import check_pairs, check_texts
from training.metrics.requirements import ProgramError, find_coco_file, find_java

Tokenizer = Literal["ptb", "words", "split"]
"""How a text becomes words. There is no default: figures of different tokenizers do not compare.

ptb: Stanford's Penn Treebank tokenizer, lower-cased, punctuation dropped: COCO's own; needs Java.
words: lower-cased runs of letters and digits, apostrophes kept inside; needs nothing.
split: the texts are tokenized already; split at whitespace, nothing else.
"""

Tokens = tuple[str, ...]

PTB_START_SECONDS = 120.0
"""How long the PTB tokenizer may take to start; a healthy start takes a second."""
PTB_CHARACTERS_PER_SECOND = 10_000
"""The slowest that it may be after that; it usually reads some million characters a second."""

_WORD = re.compile(r"\w+(?:['’]\w+)*")
# The upper-case brackets never meet a lower-cased token, so brackets stay, as they do in COCO's own tokenizer.
_PTB_PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])


def tokenize(texts: Sequence[str], tokenizer: Tokenizer) -> list[Tokens]:
    """Splits texts into words; a text without words gives an empty tuple.

    Raises:
        InvalidArgumentError: If the tokenizer is not one of `Tokenizer`, or the texts are none, or not strings.
        MissingRequirementError: If the tokenizer is "ptb", without Java or without pycocoevalcap.
        ProgramError: If Java fails, or does not end.
    """
    texts = check_texts("texts", texts)
    if tokenizer == "ptb":
        return _tokenize_ptb(texts)
    if tokenizer == "words":
        return [tuple(_WORD.findall(text.lower())) for text in texts]
    if tokenizer == "split":
        return [tuple(text.split()) for text in texts]
    raise InvalidArgumentError(f'tokenizer is {tokenizer!r}; choose "ptb", "words" or "split"')


def tokenize_pairs(
    candidates: Sequence[str], references: Sequence[str], tokenizer: Tokenizer
) -> tuple[list[Tokens], list[Tokens]]:
    """Splits n candidates and n references as `tokenize` does, with its errors; a text that recurs is split once."""
    candidates, references = check_pairs(candidates, references)
    texts = list(dict.fromkeys([*candidates, *references]))
    tokens = dict(zip(texts, tokenize(texts, tokenizer), strict=True))
    return [tokens[text] for text in candidates], [tokens[text] for text in references]


def _tokenize_ptb(texts: list[str]) -> list[Tokens]:
    java, jar = find_java("The PTB tokenizer"), find_coco_file("tokenizer/stanford-corenlp-3.4.1.jar")
    lines = [" ".join(text.split()) for text in texts]  # the program works line by line
    command = [java, "-Dfile.encoding=UTF-8", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    seconds = PTB_START_SECONDS + sum(map(len, lines)) / PTB_CHARACTERS_PER_SECOND
    try:
        finished = subprocess.run(
            [*command, "-preserveLines", "-lowerCase"],
            input="".join(line + "\n" for line in lines).encode(),
            capture_output=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise ProgramError(
            f"the PTB tokenizer was stopped after {seconds:.0f} s on {len(lines)} texts; the machine is overloaded or "
            f"Java hangs: try `{java} -version`"
        ) from error
    tokenized = finished.stdout.decode("utf-8", "replace").split("\n")[:-1]
    if finished.returncode != 0 or len(tokenized) != len(lines):
        raise ProgramError(
            f"the PTB tokenizer gave {len(tokenized)} lines for {len(lines)} texts "
            f"(exit status {finished.returncode}): {finished.stderr.decode('utf-8', 'replace').strip()}"
        )
    return [tuple(token for token in line.split() if token not in _PTB_PUNCTUATION) for line in tokenized]
