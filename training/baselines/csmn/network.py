"""CSMN's network: a memory of slots, read by attention and by convolutions over neighbouring slots.

In training all words of a text are known, so `CSMN.forward` reads the memory for all of them at once; `CSMN.read` with
the memory as it is at one step gives the same numbers, and `decoding` goes step by step.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.baselines.word_vocabulary import PAD
from training.config import CSMNConfig

HEIGHTS = (3, 4, 5)
"""How many neighbouring slots the convolutions read."""

# Weighted slots are (B, steps, slots, channels): steps are taken so many at a time that this many numbers are held.
_NUMBERS_HELD = 2**24


class Slots(NamedTuple):
    """The slots of words, n of each text.

    Attributes:
        keys: (B, n, m) what attention compares with the query: "a" in the paper.
        taps: For each of `HEIGHTS`, (B, n, height, channels): the content "c" of each slot through the convolution's
            weights for each place in its window. The convolution is linear, so the attention weight is multiplied
            afterwards.
        real: (B, n) bool, False where there is no word.
    """

    keys: Tensor
    taps: tuple[Tensor, ...]
    real: Tensor

    def followed_by(self, others: "Slots") -> "Slots":
        """These slots and, behind them, others of the same texts."""
        return Slots(
            torch.cat((self.keys, others.keys), 1),
            tuple(torch.cat(pair, 1) for pair in zip(self.taps, others.taps, strict=True)),
            torch.cat((self.real, others.real), 1),
        )


class ImageSlot(NamedTuple):
    """The one slot of the image: key and content, (B, m) each."""

    key: Tensor
    content: Tensor


class SlotConvolutions(nn.Module):
    """Convolutions of all `HEIGHTS` over weighted slots, each followed by the maximum over its places and a ReLU.

    Args:
        memory_size: m.
        channels: Of each convolution.
    """

    def __init__(self, memory_size: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.weights = nn.ModuleList(nn.Linear(memory_size, height * channels, bias=False) for height in HEIGHTS)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(channels)) for _ in HEIGHTS)

    def taps(self, content: Tensor) -> tuple[Tensor, ...]:
        """(B, n, m) content of slots -> see `Slots`."""
        return tuple(weight(content).unflatten(-1, (-1, self.channels)) for weight in self.weights)

    def forward(self, attention: Tensor, taps: tuple[Tensor, ...]) -> Tensor:
        """Reads the slots once for every step.

        Args:
            attention: (B, steps, n) weights of the slots, n at least the largest height.
            taps: Of the slots, see `Slots`.

        Returns:
            (B, steps, 3 · channels).
        """
        read = [F.relu(_highest_window(attention, tap) + bias) for tap, bias in zip(taps, self.biases, strict=True)]
        return torch.cat(read, dim=-1)


class CSMN(nn.Module):
    """The network; see the package's description.

    Args:
        vocabulary_size: V.
        image_channels: C, the size of an image's feature.
        max_words: T, the steps of the longest text.
        config: The other sizes: m the memory's, c the channels of a convolution.
    """

    def __init__(self, vocabulary_size: int, image_channels: int, max_words: int, config: CSMNConfig) -> None:
        super().__init__()
        m, read = config.memory_size, 2 * len(HEIGHTS) * config.channels
        self.max_words = max_words
        self.user_slots, self.output_slots = (max(count, *HEIGHTS) for count in (config.user_words, max_words))
        self.key_table, self.content_table, self.query_table = (
            nn.Embedding(vocabulary_size, config.word_size) for _ in range(3)
        )
        self.lift = nn.Linear(config.word_size, m)
        self.image_key = nn.Linear(image_channels, m)
        self.image_content = nn.Linear(image_channels, m)
        self.query = nn.Linear(m, m)
        self.user_convolutions = SlotConvolutions(m, config.channels)
        self.output_convolutions = SlotConvolutions(m, config.channels)
        self.read_image = nn.Linear(m, read)
        self.hidden = nn.Linear(read, read)
        self.output = nn.Linear(read, vocabulary_size)
        self.apply(_initialise)

    def forward(self, images: Tensor, contexts: Tensor, words: Tensor) -> Tensor:
        """Logits of the next word after each word of texts that are known.

        Args:
            images: (B, C) features of the images.
            contexts: (B, n) user contexts, `PAD` where a person has fewer than n words.
            words: (B, L) the words so far, `GO` first, `PAD` behind the last; L at most T.

        Returns:
            (B, L, V).
        """
        slots, queries = self.written(words), self.queries(words)
        return self.read(self.image(images), self.user(contexts), slots, queries)

    def image(self, images: Tensor) -> ImageSlot:
        """(B, C) features -> the image's slot: a = ReLU(W_a f + b_a), c = ReLU(W_c f + b_c)."""
        return ImageSlot(F.relu(self.image_key(images)), F.relu(self.image_content(images)))

    def user(self, contexts: Tensor) -> Slots:
        """(B, n) user contexts -> their slots: a_i = ReLU(W_h A[w_i]), c_i = ReLU(W_h C[w_i])."""
        padded = F.pad(contexts, (0, self.user_slots - contexts.shape[1]), value=PAD)
        return self._slots(padded, self.user_convolutions)

    def written(self, words: Tensor) -> Slots:
        """(B, n) words -> their slots in the memory of what was written."""
        return self._slots(words, self.output_convolutions)

    def queries(self, words: Tensor) -> Tensor:
        """(B, n) last words -> (B, n, m) queries: q = ReLU(W_q ReLU(W_h B[y]))."""
        return F.relu(self.query(F.relu(self.lift(self.query_table(words)))))

    def read(self, image: ImageSlot, user: Slots, written: Slots, queries: Tensor) -> Tensor:
        """Logits of the next word at the last steps of a text.

        p = softmax over the slots of q · a, and the content of each slot is weighted by its p; the image's goes through
        a layer, those of words through convolutions:
        h = ReLU(W_o (ReLU(W_im p c_im) + [user; written])), logits = W_f h.

        Args:
            image: The image's slot.
            user: The slots of the user's words.
            written: n slots, of the words so far, the last of which each query is of.
            queries: (B, Q, m), Q at most n; the query at q sees the slots up to its own.

        Returns:
            (B, Q, V).
        """
        batch, steps, count = len(queries), queries.shape[1], written.real.shape[1]
        order = torch.ones(steps, count, dtype=torch.bool, device=queries.device).tril(count - steps)
        real = torch.cat(
            (
                user.real.new_ones(batch, steps, 1),
                user.real[:, None].expand(-1, steps, -1),
                written.real[:, None] & order,
            ),
            dim=-1,
        )
        keys = torch.cat((image.key[:, None], user.keys, written.keys), dim=1)
        scores = (queries @ keys.transpose(1, 2)).masked_fill(~real, -torch.inf)
        of_image, of_user, of_written = torch.split(scores.softmax(-1), [1, user.real.shape[1], count], dim=-1)
        # Slots that are still empty are zeros. Windows that hold nothing else read the same, so one of them is enough.
        empty = min(self.output_slots, count + max(HEIGHTS)) - count
        words = torch.cat(
            (
                self.user_convolutions(of_user, user.taps),
                self.output_convolutions(
                    F.pad(of_written, (0, empty)), tuple(F.pad(tap, (0, 0, 0, 0, 0, empty)) for tap in written.taps)
                ),
            ),
            dim=-1,
        )
        seen = F.relu(self.read_image(of_image * image.content[:, None]))
        logits: Tensor = self.output(F.relu(self.hidden(seen + words)))
        return logits

    def _slots(self, words: Tensor, convolutions: SlotConvolutions) -> Slots:
        real = words != PAD
        keys, content = (F.relu(self.lift(table(words))) for table in (self.key_table, self.content_table))
        return Slots(keys, convolutions.taps(content * real[..., None]), real)


def _highest_window(attention: Tensor, tap: Tensor) -> Tensor:
    """The convolution's largest value over its places: (B, steps, n), (B, n, height, c) -> (B, steps, c)."""
    batch, slots, height, channels = tap.shape
    places = slots - height + 1
    steps_at_once = max(1, _NUMBERS_HELD // (batch * places * channels))
    highest = []
    for some in torch.split(attention, steps_at_once, dim=1):
        windows = some[..., :places, None] * tap[:, None, :places, 0]
        for place in range(1, height):
            windows = windows + some[..., place : place + places, None] * tap[:, None, place : place + places, place]
        highest.append(windows.max(dim=2).values)  # amax would keep all windows for its gradient
    return torch.cat(highest, dim=1)


def _initialise(module: nn.Module) -> None:
    """Uniform weights whose variance is that of the sizes around them, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        bound = (3 / module.embedding_dim) ** 0.5  # rows of length 1
        nn.init.uniform_(module.weight, -bound, bound)
