"""Which samples a batch is made of, and which of their modalities are dropped."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from pydeper.persona.preprocess import EncodedSample
from training.data.shards import OPEN_SHARDS
from training.seeding import step_generator


def batch_rows(
    count: int,
    batch_size: int,
    seed: int,
    batch: int,
    *,
    lengths: np.ndarray | None = None,
    bucket: int = 1,
    shard_of: np.ndarray | None = None,
) -> np.ndarray:
    """Rows of the batch with this running number, in an endless walk through `count` rows, shuffled every epoch.

    Args:
        count: How many rows there are.
        batch_size: Rows in a batch.
        seed: Seed of the walk.
        batch: The batch's running number.
        lengths: (count,) how long each row is, for buckets.
        bucket: So many consecutive batches sort their rows by length among themselves, so that little is padding;
            1: no order but the walk's.
        shard_of: (count,) the shard that each row is in: the walk then goes through a few shards at a time.
    """
    if bucket == 1 or lengths is None:
        return _walk(count, range(batch * batch_size, (batch + 1) * batch_size), seed, shard_of)
    first = batch - batch % bucket
    rows = _walk(count, range(first * batch_size, (first + bucket) * batch_size), seed, shard_of)
    places: np.ndarray = by_length(lengths[rows], bucket, seed, first)[batch - first]
    own: np.ndarray = rows[places]
    return own


def by_length(lengths: np.ndarray, batches: int, seed: int, first: int) -> np.ndarray:
    """Sorts rows of these lengths into batches, like with like: (batches, rows a batch) places.

    Args:
        lengths: (n,), n a multiple of `batches`.
        batches: How many batches there are; their order is random.
        seed: Seed of that order.
        first: Running number of the first batch.
    """
    if batches == 1:
        return np.arange(len(lengths))[None]
    places = np.argsort(lengths, kind="stable").reshape(batches, -1)
    return places[step_generator(seed, first, 2).permutation(batches)]


def _walk(count: int, steps: range, seed: int, shard_of: np.ndarray | None) -> np.ndarray:
    epochs, places = np.divmod(np.array(steps), count)
    orders = {int(epoch): _epoch_order(count, seed, int(epoch)) for epoch in np.unique(epochs)}
    if shard_of is not None:
        orders = {epoch: _shard_by_shard(order, shard_of, seed, epoch) for epoch, order in orders.items()}
    return np.array([orders[int(epoch)][place] for epoch, place in zip(epochs, places, strict=True)])


def _shard_by_shard(order: np.ndarray, shard_of: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """A shuffled order in which few shards at a time take their turn, together and at random."""
    turns = step_generator(seed, epoch, 3).permutation(int(shard_of.max()) + 1) // (OPEN_SHARDS - 1)
    return order[np.argsort(turns[shard_of[order]], kind="stable")]


@lru_cache(maxsize=4)
def _epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    return step_generator(seed, epoch).permutation(count)


def dropped_modalities(samples: Sequence[EncodedSample], chance: float, rng: np.random.Generator) -> list[str | None]:
    """Modality dropout: which of its two modalities each sample loses, if any; what is alone stays."""
    draws = rng.random(len(samples))
    modalities = ("trajectory" if draw < chance else "text" if draw > 1 - chance else None for draw in draws)
    return [_spared(sample, modality) for sample, modality in zip(samples, modalities, strict=True)]


def left_out(samples: Sequence[EncodedSample], modality: str | None) -> list[str | None]:
    """This modality for every sample that holds the other one too, to be left out; what is alone stays."""
    return [_spared(sample, modality) for sample in samples]


def _spared(sample: EncodedSample, modality: str | None) -> str | None:
    return modality if len(sample.input_ids) > 0 and len(sample.durations) > 0 else None
