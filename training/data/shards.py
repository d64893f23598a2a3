"""Samples whose images need not fit this machine: WebDataset tar files, in a folder or behind an address.

A folder of shards holds

    index.jsonl              a line an image: {"image": "000000.tar/KEY.jpg", "samples": [...]}, its samples in the
                             format of `pydeper.read_samples` without the image
    000000.tar, 000001.tar…  each image once, as KEY.jpg (or .png, …), with its samples beside it as KEY.json, so that
                             any reader of WebDataset has all it needs; KEY is the sha256 of the image's bytes

Images are shuffled over the shards, so that each shard holds some of everybody. A shard is read whole, into memory.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import tarfile
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import attrs
import numpy as np
from PIL import Image

from pydeper import readers
from pydeper.errors import InvalidImageError, InvalidSampleError, PydeperError
from pydeper.files.atomic import atomic_path
from pydeper.images import image_format, open_image
from pydeper.samples.sample import Sample
from pydeper.samples.trajectory import Fixation, Trajectory
from training.data.images import content_key
from training.outputs import output_folder
from training.progress import progress

INDEX = "index.jsonl"
OPEN_SHARDS = 3
"""Shards that are held in memory, and whose samples are shuffled together."""

_SHARD = re.compile(r"\d{6,}\.tar")
_MEMBER = re.compile(r"\d+\.tar/[0-9a-f]{64}\.\w+")
_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2"}


class ShardError(PydeperError):
    """Shards cannot be written or read."""


# --- writing


@attrs.frozen
class Written:
    """What `write_shards` wrote, and how many images it had to leave out."""

    shards: int
    images: int
    samples: int
    broken: int


def write_shards(
    samples: Sequence[Sample], folder: Path, *, shard_mib: float = 128, skip_broken_images: int = 0, seed: int = 0
) -> Written:
    """Packs samples with their images; every image is decoded once, to know that it can be.

    Args:
        samples: The samples; those of one image, wherever it lies, share one copy of it.
        folder: Must not hold shards yet. After an error it holds none.
        shard_mib: Images go into a shard until it is that large, in MiB.
        skip_broken_images: So many images may be unreadable; their samples are left out, and warnings name them.
        seed: Of the images' order.

    Raises:
        ShardError: The folder holds shards already, no sample is left, or a file cannot be written.
        InvalidImageError: More images are unreadable.
    """
    check_free(folder)
    of_image, broken = _by_content(samples, skip_broken_images)
    if not of_image:
        raise ShardError("there are zero samples to write; give at least one with an image that can be read")
    keys = np.random.default_rng(seed).permutation(sorted(of_image))
    lines: list[str] = []
    shards = 0
    try:
        with output_folder(folder), contextlib.ExitStack() as undo:
            order = progress([str(key) for key in keys], "writing shards", "images")
            for shard in _cut(order, of_image, int(shard_mib * 2**20)):
                path = folder / f"{shards:06}.tar"
                undo.callback(path.unlink, missing_ok=True)
                lines += _write_shard(path, {key: of_image[key] for key in shard})
                shards += 1
            with atomic_path(folder / INDEX) as temporary:  # last: a folder without it is not finished
                temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
            undo.pop_all()
    except OSError as error:
        raise ShardError(f"{folder}: cannot be written ({error}); free space there, or name another folder") from error
    count = sum(map(len, of_image.values()))
    return Written(shards=shards, images=len(of_image), samples=count, broken=broken)


def check_free(folder: Path) -> None:
    """Refuses a folder in which `write_shards` would replace something.

    Raises:
        ShardError: It holds shards already, or files that are called like them.
    """
    names = sorted(path.name for path in folder.glob("*"))
    if there := [name for name in names if name == INDEX] or [name for name in names if _SHARD.fullmatch(name)]:
        raise ShardError(f"{folder}: holds {there[0]} already; name another folder, or remove that one")


def _by_content(samples: Sequence[Sample], skip_broken: int) -> tuple[dict[str, list[Sample]], int]:
    """The samples of each image, by its key, and how many images are unreadable."""
    keys: dict[object, str | None] = {}
    of_image: dict[str, list[Sample]] = defaultdict(list)
    broken = 0
    for sample in progress(samples, "reading images", "samples"):
        name = str(sample.image) if isinstance(sample.image, str | os.PathLike) else id(sample.image)
        if name not in keys:
            try:
                sample.open_image()
                keys[name] = content_key(_content(sample))
            except InvalidImageError as error:
                keys[name], broken = None, broken + 1
                if broken > skip_broken:
                    raise
                warnings.warn(f"skipped: {error}", stacklevel=3)
        if (key := keys[name]) is not None:
            of_image[key].append(sample)
    return of_image, broken


def _cut(keys: Iterable[str], of_image: dict[str, list[Sample]], size: int) -> Iterator[list[str]]:
    """Cuts the images' order into shards."""
    shard: list[str] = []
    nbytes = 0
    for key in keys:
        length = len(_content(of_image[key][0]))
        if shard and nbytes + length > size:
            yield shard
            shard, nbytes = [], 0
        shard.append(key)
        nbytes += length
    yield shard


def _write_shard(path: Path, of_image: dict[str, list[Sample]]) -> list[str]:
    """Writes one shard. Returns its lines of the index."""
    from webdataset import TarWriter

    lines: list[str] = []
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        writer = TarWriter(file, mtime=0)  # the same samples make the same bytes
        for key, samples in of_image.items():
            content, records = _content(samples[0]), _records(samples)
            suffix = _suffix(content)
            lines.append(json.dumps({"image": f"{path.name}/{key}.{suffix}", "samples": records}, ensure_ascii=False))
            writer.write({"__key__": key, suffix: content, "json": json.dumps(records, ensure_ascii=False).encode()})
        writer.close()
    return lines


def _records(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """The samples of one image, but for the image."""
    return [
        {
            "description": sample.description,
            "subject": sample.subject,
            "split": sample.split,
            "trajectory": sample.trajectory and [attrs.asdict(fixation) for fixation in sample.trajectory],
        }
        for sample in samples
    ]


def _content(sample: Sample) -> bytes:
    """The bytes of an image file: those there are, or those of a PNG."""
    if isinstance(sample.image, bytes):
        return sample.image
    if isinstance(sample.image, str | os.PathLike):
        return Path(sample.image).read_bytes()
    buffer = io.BytesIO()
    open_image(sample.image).save(buffer, "PNG")
    return buffer.getvalue()


def _suffix(content: bytes) -> str:
    kind = image_format(content)
    return _SUFFIXES.get(kind, kind.lower())


# --- reading


def read_samples(place: str, *, check_durations: bool = True) -> list[Sample]:
    """Reads samples from wherever a setting says: a file (see `pydeper.read_samples`), or shards.

    Args:
        place: A JSON Lines file, or a folder or an address (http, https) of shards.
        check_durations: Of a file, whether to refuse trajectories whose durations are in another unit than seconds (see
            `pydeper.read_samples`). Shards hold samples that were judged when they were written.

    Raises:
        InvalidSampleError: The file cannot be read.
        ShardError: The shards cannot be read.
    """
    if _is_address(place) or Path(place).is_dir():
        return read_shard_samples(place)
    return readers.read_samples(place, check_durations=check_durations)


def read_shard_samples(address: str) -> list[Sample]:
    """Reads the samples of a folder of shards; their images are `ADDRESS/000000.tar/KEY.jpg`, for `ShardImages`.

    Args:
        address: The folder, or its address (http, https).

    Raises:
        ShardError: There are no shards there, or the index cannot be read.
    """
    address = address.rstrip("/")
    with _opened(f"{address}/{INDEX}") as stream:
        lines = stream.read().decode("utf-8", "replace").splitlines()
    return [sample for number, line in enumerate(lines, 1) for sample in _samples(line, address, number)]


def _samples(line: str, address: str, number: int) -> list[Sample]:
    place = f"{address}/{INDEX}:{number}"
    try:
        found = json.loads(line)
        if not _MEMBER.fullmatch(found["image"]):
            raise ValueError(f"image {found['image']!r} is not of the form 000000.tar/KEY.jpg")
        image = f"{address}/{found['image']}"
        return [
            Sample(image=image, source=place, **(record | {"trajectory": _trajectory(record["trajectory"])}))
            for record in found["samples"]
        ]
    except (ValueError, TypeError, KeyError, InvalidSampleError) as error:
        raise ShardError(f"{place}: damaged ({error}); fetch or write the shards again") from error


def _trajectory(fixations: list[dict[str, Any]] | None) -> Trajectory | None:
    if fixations is None:
        return None
    # They were judged when they were read to be written here.
    return Trajectory(tuple(Fixation(**fixation) for fixation in fixations), check_durations=False)


class ShardImages:
    """Images inside shards; see `training.data.images.Images`.

    Args:
        samples: One sample of each image, as `read_shard_samples` gives it.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples
        # The shards that were used last, each as its images' bytes by name.
        self._open: OrderedDict[str, dict[str, bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._samples)

    @staticmethod
    def holds(samples: Sequence[Sample]) -> bool:
        """Whether these samples' images are in shards."""
        return all(isinstance(sample.image, str) and ".tar/" in sample.image for sample in samples)

    def key(self, number: int) -> str:
        """See `Images`; known without opening the shard."""
        return self._parts(number)[1].partition(".")[0]

    def shard(self, number: int) -> str:
        """The address of the shard that holds the image."""
        return self._parts(number)[0]

    def open(self, number: int) -> Image.Image:
        """See `Images`.

        Raises:
            ShardError: The shard cannot be read, is damaged, or does not hold the image.
        """
        shard, name = self._parts(number)
        if shard not in self._open:
            while len(self._open) >= OPEN_SHARDS:
                self._open.popitem(last=False)
            self._open[shard] = read_shard(shard)
        self._open.move_to_end(shard)
        if name not in self._open[shard]:
            raise ShardError(f"{shard}: holds no {name}, which {INDEX} names; write the shards again")
        return open_image(self._open[shard][name])

    def _parts(self, number: int) -> tuple[str, str]:
        shard, _, name = str(self._samples[number].image).rpartition("/")
        return shard, name


def read_shard(address: str) -> dict[str, bytes]:
    """Reads a whole shard: the bytes of its images, by name.

    Raises:
        ShardError: It cannot be read, or is damaged.
    """
    from webdataset.tariterators import tar_file_iterator

    with _opened(address) as stream:
        members = {member["fname"]: member["data"] for member in tar_file_iterator(stream)}
    images = {name: data for name, data in members.items() if not name.endswith(".json")}
    for name, data in images.items():
        if hashlib.sha256(data).hexdigest() != name.partition(".")[0]:
            raise ShardError(f"{address}: {name} is damaged; fetch or write the shard again")
    return images


@contextlib.contextmanager
def _opened(address: str) -> Iterator[IO[bytes]]:
    """A stream of a file's bytes; an address is read by WebDataset's own opener, which retries."""
    from webdataset.gopen import gopen

    try:
        with contextlib.closing(gopen(address) if _is_address(address) else Path(address).open("rb")) as stream:
            yield stream
    except (OSError, tarfile.TarError) as error:
        raise ShardError(f"{address}: cannot be read ({error}); `python -m training shard` writes shards") from error


def _is_address(text: str) -> bool:
    return text.startswith(("http://", "https://"))
