"""Samples as MITR reads them: words with a box each, and the image's tokens; padded batches of them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import attrs
import numpy as np
import torch
from torch import Tensor

from pydeper.readers.utterances import Utterance
from pydeper.samples.sample import Sample
from training.baselines.mitr.alignment import WHOLE_IMAGE, boxes_of_words
from training.baselines.word_vocabulary import EOS, GO, PAD, Vocabulary, words_of


class MITRBatch(NamedTuple):
    """Padded texts with the boxes of their words: what is read, and what is to be predicted from it.

    Attributes:
        image_tokens: (B, G·G, C)
        words: (B, T) `GO` and all words.
        boxes: (B, T, 5) a box of zeros and the boxes of all words, corners and area.
        target_words: (B, T) all words and `EOS`; `PAD` behind it.
        target_boxes: (B, T, 5) the boxes of the words; the whole image at the end and behind it.
    """

    image_tokens: Tensor
    words: Tensor
    boxes: Tensor
    target_words: Tensor
    target_boxes: Tensor

    def to(self, device: torch.device) -> "MITRBatch":
        """The batch on a device."""
        return MITRBatch(*(tensor.to(device) for tensor in self))


@attrs.frozen(eq=False)
class Examples:
    """Described samples that the network learns from, or is measured on.

    Attributes:
        samples: n samples.
        words: n lists of the numbers of words, without special ones.
        boxes: n arrays (words, 5), a box a word.
        image_tokens_of: Samples -> (B, G·G, C) tokens of their images.
    """

    samples: Sequence[Sample]
    words: Sequence[Sequence[int]]
    boxes: Sequence[np.ndarray]
    image_tokens_of: Callable[[Sequence[Sample]], Tensor]

    @classmethod
    def of(
        cls,
        samples: Sequence[Sample],
        vocabulary: Vocabulary,
        image_tokens_of: Callable[[Sequence[Sample]], Tensor],
        *,
        max_words: int,
        utterances_of: Callable[[Sample], Sequence[Utterance]] = lambda _: (),
    ) -> "Examples":
        """Aligns the words of samples with boxes.

        Args:
            samples: Each has a description.
            vocabulary: Of the words.
            image_tokens_of: See `Examples`.
            max_words: Longer texts are cut.
            utterances_of: What was said when; nothing where that is not known.
        """
        texts = [words_of(str(sample.description)) for sample in samples]
        boxes = [
            boxes_of_words(text, sample.trajectory, utterances_of(sample))[:max_words]
            for text, sample in zip(texts, samples, strict=True)
        ]
        words = [vocabulary.encode_words(text[:max_words]) for text in texts]
        return cls(samples, words, boxes, image_tokens_of)

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, rows: Sequence[int]) -> MITRBatch:
        """Collates samples."""
        longest = max(len(self.words[row]) for row in rows)
        words = np.full((len(rows), longest + 1), PAD)
        target_words = words.copy()
        boxes = np.zeros((len(rows), longest + 1, 5), dtype=np.float32)
        target_boxes = np.tile(np.array(WHOLE_IMAGE, dtype=np.float32), (len(rows), longest + 1, 1))
        words[:, 0] = GO
        for place, row in enumerate(rows):
            count = len(self.words[row])
            words[place, 1 : count + 1] = target_words[place, :count] = self.words[row]
            boxes[place, 1 : count + 1] = target_boxes[place, :count] = self.boxes[row]
            target_words[place, count] = EOS
        arrays = (words, boxes, target_words, target_boxes)
        return MITRBatch(self.image_tokens_of([self.samples[row] for row in rows]), *map(torch.from_numpy, arrays))
