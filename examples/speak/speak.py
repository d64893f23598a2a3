"""Speaks the description of a picture, sentence by sentence, while it is generated.

Run it with ``python -m examples.speak.speak PICTURE --persona ana.safetensors``.
"""

import argparse
import queue
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyttsx3

from pydeper import DeperModel, Persona, PydeperError
from pydeper.console import run_command

_END_OF_SENTENCE = re.compile(r"(?<=[.!?…])\s+")


def sentences(pieces: Iterable[str]) -> Iterator[str]:
    """Joins pieces of a text and gives out each sentence as soon as the next one begins."""
    text = ""
    for piece in pieces:
        *ended, text = _END_OF_SENTENCE.split(text + piece)
        yield from ended
    if text.strip():
        yield text.strip()


def speak(pieces: Iterable[str], say: Callable[[str], None]) -> None:
    """Says a text while it is generated: the next sentence is computed while this one is heard."""
    ready: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def generate() -> None:
        try:
            for sentence in sentences(pieces):
                ready.put(sentence)
        finally:
            ready.put(None)

    with ThreadPoolExecutor(1) as pool:
        generated = pool.submit(generate)
        while (sentence := ready.get()) is not None:
            say(sentence)
        generated.result()  # raises what went wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("picture")
    parser.add_argument("--persona", metavar="FILE", help="of the user, for whom it is described")
    parser.add_argument("--model", help="a Hub id, a folder, or 'tiny' (default: $PYDEPER_MODEL, else 'tiny')")
    options = parser.parse_args(arguments)
    try:
        voice = pyttsx3.init()
    except (ImportError, RuntimeError) as error:
        raise PydeperError(f"there is no voice here: {error} On Debian: apt install espeak-ng alsa-utils") from error
    model = DeperModel.from_pretrained(options.model)
    user = Persona.load(options.persona) if options.persona else None

    def say(sentence: str) -> None:
        print(sentence, flush=True)
        voice.say(sentence)
        voice.runAndWait()

    speak(model.stream(options.picture, user), say)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("speak", main))
