import threading
from concurrent.futures import ThreadPoolExecutor

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pydeper.model.image_cache import ImageCache, content_key


def picture(number: int, size: tuple[int, int] = (4, 3)) -> Image.Image:
    return Image.new("RGB", size, (number, 0, 0))


@attrs.frozen(eq=False)
class Encoded:
    nbytes: int


@attrs.define
class Encoder:
    """Encodes a picture as so many bytes, and keeps count."""

    nbytes: int = 1
    count: int = 0

    def __call__(self, picture: Image.Image) -> Encoded:
        self.count += 1
        return Encoded(self.nbytes)


@given(
    st.integers(0, 4),
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9)), max_size=30),
)
def test_it_keeps_those_asked_for_last(images: int, max_bytes: int, asked: list[tuple[int, int]]) -> None:
    """Against a list that is kept in order by hand; the first size of an image is its size for ever."""
    cache: ImageCache[Encoded] = ImageCache(images, max_bytes)
    kept: list[tuple[int, int]] = []
    for number, size in asked:
        encoder = Encoder(size)
        found = cache.encoded(picture(number), encoder)
        known = next((entry for entry in kept if entry[0] == number), None)
        assert encoder.count == (known is None)
        assert found.nbytes == (known or (number, size))[1]
        kept = [entry for entry in kept if entry[0] != number] + [known or (number, size)]
        if size > max_bytes and known is None:
            kept.pop()
        while len(kept) > images or sum(size for _, size in kept) > max_bytes:
            kept.pop(0)
        assert cache.held() == (len(kept), sum(size for _, size in kept))
    cache.clear()
    assert cache.held() == (0, 0)


def test_images_go_by_what_they_show() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    keys = {
        content_key(Image.fromarray(array))
        for array in (noise, noise.copy(), noise.reshape(4, 6, 3), noise[::-1], noise[:5], noise ^ 1)
    }
    assert len(keys) == 5


def test_what_grows_while_it_is_used_is_measured_anew() -> None:
    @attrs.define(eq=False)
    class Growing:
        nbytes: int = 1

    cache: ImageCache[Growing] = ImageCache(3, max_bytes=10)
    first = cache.encoded(picture(1), lambda _: Growing())
    cache.encoded(picture(2), lambda _: Growing())
    first.nbytes = 9
    assert cache.held() == (2, 10)
    first.nbytes = 10
    assert cache.encoded(picture(1), lambda _: Growing()) is first
    assert cache.held() == (1, 10)  # the other one had been asked for earlier


def test_threads_that_want_one_image_wait_for_one_encoding() -> None:
    cache: ImageCache[Encoded] = ImageCache(2)
    encoder, entered, go_on = Encoder(), threading.Event(), threading.Event()

    def encode(image: Image.Image) -> Encoded:
        entered.set()
        assert go_on.wait(60)
        return encoder(image)

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(cache.encoded, picture(1), encode) for _ in range(4)]
        assert entered.wait(60)
        assert cache.held() == (0, 0)  # nothing half done
        go_on.set()
        assert len({job.result(10) for job in jobs}) == 1
    assert encoder.count == 1


def test_threads_that_want_different_images_do_not_wait_for_each_other() -> None:
    cache: ImageCache[Encoded] = ImageCache(1)
    both = threading.Barrier(3)

    def encode(_: Image.Image) -> Encoded:
        both.wait(60)  # all are inside at once, or none gets out
        return Encoded(1)

    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(cache.encoded, picture(number), encode) for number in range(3)]
        assert len({job.result(10) for job in jobs}) == 3
    assert cache.held() == (1, 1)


@pytest.mark.parametrize("failure", [ValueError("no"), MemoryError(), KeyboardInterrupt()])
def test_a_failure_is_the_callers_own_and_leaves_nothing(failure: BaseException) -> None:
    cache: ImageCache[Encoded] = ImageCache(2)
    entered, go_on = threading.Event(), threading.Event()

    def fail(_: Image.Image) -> Encoded:
        entered.set()
        assert go_on.wait(60)
        raise failure

    def first() -> None:
        with pytest.raises(type(failure)):
            cache.encoded(picture(1), fail)

    encoder = Encoder()
    with ThreadPoolExecutor(2) as pool:
        failing = pool.submit(first)
        assert entered.wait(60)
        waiting = pool.submit(cache.encoded, picture(1), encoder)
        go_on.set()
        failing.result(10)
        assert waiting.result(10).nbytes == 1
    assert encoder.count == 1
    assert cache.held() == (1, 1)


def test_what_is_being_encoded_while_the_cache_is_cleared_is_not_kept() -> None:
    cache: ImageCache[Encoded] = ImageCache(2)

    def encode(_: Image.Image) -> Encoded:
        cache.clear()
        return Encoded(1)

    assert cache.encoded(picture(1), encode).nbytes == 1
    assert cache.held() == (0, 0)
