"""METEOR 1.5 as COCO caption evaluation has it: its Java program aligns the words, the score is computed here."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from training.metrics.caption_scores import CaptionScores
from training.metrics.requirements import ProgramError, find_coco_file, find_java
from training.metrics.tokenization import Tokenizer, Tokens, tokenize_pairs

ANSWER_SECONDS = 300.0
"""How long the program may take for one answer; the first includes its start. An ordinary pair takes milliseconds."""

# The parameters for English (Denkowski and Lavie 2014), with a weight each for words, stems, synonyms and paraphrases.
_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75

_running: ContextVar[_Program | None] = ContextVar("running", default=None)

_MATCHES = slice(4, 20)
_CHUNKS = 20
_NUM_STATISTICS = 23


def meteor(candidates: Sequence[str], references: Sequence[str], *, tokenizer: Tokenizer) -> CaptionScores:
    """METEOR 1.5 (Denkowski and Lavie 2014), English, in [0, 1].

    Args:
        candidates: n descriptions as predicted.
        references: n descriptions as written, one for each candidate.
        tokenizer: See `tokenization.Tokenizer`; METEOR normalises the tokenized text once more itself.

    Raises:
        InvalidArgumentError: If the lists differ in length, are empty, or hold anything but strings.
        MissingRequirementError: If Java or pycocoevalcap is missing.
        ProgramError: If the program ends before it has answered, or does not answer within `ANSWER_SECONDS`.
    """
    statistics = meteor_statistics(candidates, references, tokenizer=tokenizer)
    return CaptionScores(meteor_from_statistics(statistics), float(meteor_from_statistics(statistics.sum(axis=0))))


def meteor_statistics(
    candidates: Sequence[str], references: Sequence[str], *, tokenizer: Tokenizer
) -> NDArray[np.float64]:
    """The counts that METEOR is made of; they add up over pairs, so a resampled corpus costs one sum.

    The arguments and the errors are those of `meteor`.

    Returns:
        (n, 23): words of candidate and reference; function words of both; for each of four matchers the matched content
        words of both and function words of both; chunks; matched words of both.
    """
    pairs = list(zip(*tokenize_pairs(candidates, references, tokenizer), strict=True))
    running = _running.get()
    with _start() if running is None else contextlib.nullcontext(running) as program:
        statistics = np.array([program.answer(*pair) for pair in pairs])
    # A pair that matches word for word in one piece is not broken up at all: METEOR's own sums do not count its chunk.
    whole = (statistics[:, _CHUNKS] == 1) & (statistics[:, 21:] == statistics[:, :2]).all(axis=1)
    statistics[whole, _CHUNKS] = 0
    return statistics


def meteor_from_statistics(statistics: NDArray[np.float64]) -> NDArray[np.float64]:
    """METEOR of rows, or of sums of rows, of `meteor_statistics`: shape (..., 23) to (...) in [0, 1]."""
    words, function_words = statistics[..., 0:2], statistics[..., 2:4]
    matches = statistics[..., _MATCHES].reshape(*statistics.shape[:-1], len(_WEIGHTS), 2, 2)
    matched = np.einsum("m,...mks->...ks", _WEIGHTS, matches)  # k: content or function words, s: candidate or reference
    found = _DELTA * matched[..., 0, :] + (1 - _DELTA) * matched[..., 1, :]
    length = _DELTA * (words - function_words) + (1 - _DELTA) * function_words
    share = np.divide(found, length, out=np.zeros_like(found), where=length > 0)
    precision, recall = share[..., 0], share[..., 1]
    mean = _ratio(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall)
    fragmentation = _ratio(statistics[..., _CHUNKS], statistics[..., 21:].mean(axis=-1))
    return mean * (1 - _GAMMA * fragmentation**_BETA)


@contextlib.contextmanager
def one_program() -> Iterator[None]:
    """Lets all calls within the block share one Java program; the block's end ends it.

    Its start takes seconds, and a pair that comes again is not scored again.

    Raises:
        MissingRequirementError: If Java or pycocoevalcap is missing.
    """
    with _start() as program:
        token = _running.set(program)
        try:
            yield
        finally:
            _running.reset(token)


def _start() -> _Program:
    java, jar = find_java("METEOR"), find_coco_file("meteor/meteor-1.5.jar")
    command = [java, "-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", jar.name, "-", "-", "-stdio", "-l", "en", "-norm"]
    return _Program(command, str(jar.parent))  # it looks for its paraphrase table beside itself


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


class _Program:
    """METEOR's Java program, which answers a line at a time; leaving the block ends it, whatever state it is in."""

    def __init__(self, command: list[str], folder: str) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  (a pipe that nobody reads could fill up)
        try:
            self._program = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._complaints
            )
        except BaseException:
            self._complaints.close()
            raise
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._input, self._output = self._program.stdin, self._program.stdout
        self._late = False
        self._answers: dict[tuple[Tokens, Tokens], list[float]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._program.kill()
        with contextlib.suppress(BrokenPipeError):
            self._input.close()  # tells it to end
        try:
            self._program.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._program.kill()
            self._program.wait()
        self._output.close()
        self._complaints.close()

    def answer(self, candidate: Tokens, reference: Tokens) -> list[float]:
        """Returns the 23 counts of one pair, remembered from the last time where it was asked before."""
        pair = (candidate, reference)
        if pair not in self._answers:
            self._answers[pair] = self._ask(candidate, reference)
        return self._answers[pair]

    def _ask(self, candidate: Tokens, reference: Tokens) -> list[float]:
        # "|||" separates the fields of METEOR's protocol, so no word may hold it.
        hypothesis, truth = (" ".join(tokens).replace("|||", " ") for tokens in (candidate, reference))
        with self._limited():
            # A program that has ended is told by the missing answer, with what it printed.
            with contextlib.suppress(BrokenPipeError):
                self._input.write(f"SCORE ||| {truth} ||| {hypothesis}\n".encode())
                self._input.flush()
            line = self._output.readline().decode("utf-8", "replace")
        try:
            counts = [float(word) for word in line.split()]
        except ValueError:
            counts = []
        if len(counts) != _NUM_STATISTICS:
            raise ProgramError(self._failure(line, hypothesis))
        return counts

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        """Kills the program when the block takes too long, which ends whatever the block waits for."""

        def kill() -> None:
            self._late = True
            self._program.kill()

        timer = threading.Timer(ANSWER_SECONDS, kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _failure(self, line: str, hypothesis: str) -> str:
        if self._late:
            return f"METEOR was stopped: no answer for {ANSWER_SECONDS:g} s, on the candidate {hypothesis!r:.80}"
        self._complaints.seek(0)
        printed = (line + self._complaints.read().decode("utf-8", "replace")).strip()
        return f"METEOR has not given {_NUM_STATISTICS} counts, but: {printed or 'nothing; it ended'}"
