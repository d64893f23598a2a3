"""The built-in model, loaded with a VLM that tells what it was asked to do."""

import weakref
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from PIL import Image

from pydeper import DeperModel
from pydeper.vlm import open_vlm


class Watched:
    """A VLM that works as ever, and tells what it was asked to do since `forget` was last called."""

    def __init__(self, vlm: Any) -> None:
        self._vlm = vlm
        self.forget()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vlm, name)

    def forget(self) -> None:
        self.encoded: list[weakref.ref[Any]] = []
        self.rows: list[int] = []
        self.steps = 0
        self.held_at_once = 0

    def encode_image(self, image: Image.Image) -> Any:
        encoded = self._vlm.encode_image(image)
        self.encoded.append(weakref.ref(encoded))
        self.held_at_once = max(self.held_at_once, self.alive())
        return encoded

    def generate(self, encoded: Any, style: str, soft_tokens: Any, options: Any) -> Any:
        rows = len(encoded) if isinstance(encoded, Sequence) else 1 if soft_tokens is None else len(soft_tokens)
        self.rows.append(rows)
        return self._vlm.generate(encoded, style, soft_tokens, options)

    def stream(self, *arguments: Any) -> Iterator[str]:
        return self._counted(self._vlm.stream(*arguments))

    async def astream(self, *arguments: Any) -> AsyncGenerator[str, None]:
        async with aclosing(self._vlm.astream(*arguments)) as pieces:
            async for piece in pieces:
                self.steps += 1
                yield piece

    def _counted(self, pieces: Iterator[str]) -> Iterator[str]:
        for piece in pieces:
            self.steps += 1
            yield piece

    def alive(self) -> int:
        return sum(reference() is not None for reference in self.encoded)


_watched: weakref.WeakKeyDictionary[DeperModel, Watched] = weakref.WeakKeyDictionary()


def load_tiny(image_cache: int) -> DeperModel:
    """Loads the built-in model; `watch` finds its VLM."""
    opened: list[Watched] = []

    def open_watched(*arguments: Any, **options: Any) -> Watched:
        opened.append(Watched(open_vlm(*arguments, **options)))
        return opened[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pydeper.model.loading.open_vlm", open_watched)
        model = DeperModel.from_pretrained("tiny", device="cpu", threads=1, image_cache=image_cache)
    (_watched[model],) = opened
    return model


def watch(model: DeperModel) -> Watched:
    """Returns the VLM of a model that `load_tiny` has loaded, with what it was asked so far forgotten."""
    _watched[model].forget()
    return _watched[model]
