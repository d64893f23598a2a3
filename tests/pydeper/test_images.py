import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pydeper.errors import InvalidImageError
from pydeper.images import MAX_PIXELS, ImageLike, open_image, upright_size

RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(image: Any) -> NDArray[np.uint8]:
    opened = open_image(image)
    assert opened.mode == "RGB"
    return np.asarray(opened)


def over_white(color: tuple[int, ...], alpha: int) -> list[float]:
    return [(value * alpha + 255 * (255 - alpha)) / 255 for value in color]


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def hollow_png(width: int, height: int) -> bytes:
    """A PNG with this size in its header and nothing behind it that could be decoded."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"no pixels") + png_chunk(b"IEND", b"")
    )


def test_every_way_to_give_an_image_gives_the_same_pixels(tmp_path: Path) -> None:
    image = Image.fromarray(COLORS)
    path = tmp_path / "a.png"
    image.save(path)
    with path.open("rb") as file:
        for given_as in (
            str(path),
            path,
            path.read_bytes(),
            image,
            COLORS,
            Image.open(path),
            COLORS.copy(order="F"),
            file,
        ):
            np.testing.assert_array_equal(pixels(given_as), COLORS)
            assert upright_size(given_as) == (7, 5)


def test_a_file_object_is_read_from_its_beginning_and_left_where_it_was(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(COLORS).save(buffer, "PNG")
    place = buffer.tell()
    for _ in range(2):
        np.testing.assert_array_equal(pixels(buffer), COLORS)
        assert buffer.tell() == place
    text = tmp_path / "notes.txt"
    text.write_text("notes")
    with text.open() as opened, pytest.raises(InvalidImageError, match=r"TextIOWrapper.*binary mode"):
        open_image(opened)  # type: ignore[arg-type]
    buffer.close()
    with pytest.raises(InvalidImageError, match=r"given as a file \(BytesIO\) cannot be read"):
        open_image(buffer)


def test_a_pil_image_is_left_as_it_is() -> None:
    image = Image.fromarray(COLORS)
    image.info["note"] = "kept"
    opened = open_image(image)
    opened.paste("black", (0, 0, 7, 5))
    np.testing.assert_array_equal(np.asarray(image), COLORS)
    assert image.info == {"note": "kept"}


UPRIGHT: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_exif_orientation(orientation: int, kind: str, options: dict[str, Any]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(Image.fromarray(COLORS), kind, exif=exif, **options)
    expected = UPRIGHT[orientation](COLORS)
    np.testing.assert_array_equal(pixels(file), expected)
    np.testing.assert_array_equal(pixels(Image.open(io.BytesIO(file))), expected)
    assert upright_size(file) == expected.shape[1::-1]
    assert upright_size(Image.open(io.BytesIO(file))) == expected.shape[1::-1]
    np.testing.assert_array_equal(pixels(open_image(file)), expected)  # upright once is upright for good


def test_exif_orientation_of_a_jpeg() -> None:
    left_red = Image.new("RGB", (64, 32), "blue")
    left_red.paste("red", (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: what is left in the file is on top
    opened = open_image(encoded(left_red, "JPEG", exif=exif, quality=95))
    assert opened.size == (32, 64)
    np.testing.assert_allclose(np.asarray(opened)[8, 16], (255, 0, 0), atol=4)
    np.testing.assert_allclose(np.asarray(opened)[56, 16], (0, 0, 255), atol=4)


@pytest.mark.parametrize("block", [b"Exif\x00\x00", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"Exif\x00\x00rubbish!"])
def test_a_broken_exif_block_counts_as_absent(block: bytes) -> None:
    plain = Image.new("RGB", (20, 10), (200, 30, 30))
    file = encoded(plain, "JPEG", quality=95)
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about the block
        opened = open_image(file[:2] + segment + file[2:])
        assert opened.size == upright_size(file[:2] + segment + file[2:]) == (20, 10)
    np.testing.assert_allclose(np.asarray(opened)[5, 10], (200, 30, 30), atol=4)


def test_cmyk() -> None:
    ink = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    np.testing.assert_allclose(pixels(encoded(ink, "TIFF"))[0, 0], (0, 255, 255))
    np.testing.assert_allclose(pixels(encoded(ink, "JPEG", quality=100))[4, 4], (0, 255, 255), atol=3)
    np.testing.assert_allclose(pixels(encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "TIFF"))[0, 0], 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000"])
def test_16_bit_greyscale_is_scaled(kind: str) -> None:
    wide = np.linspace(0, 65535, 256 * 4).astype(np.uint16).reshape(32, 32)
    expected = np.rint(wide / 257)
    got = pixels(encoded(Image.fromarray(wide), kind))
    np.testing.assert_array_equal(got, np.repeat(expected[:, :, None], 3, axis=2))


def test_16_bit_greyscale_with_a_transparent_value() -> None:
    wide = np.array([[0, 20000, 65535]], dtype=np.uint16)
    plain = encoded(Image.fromarray(wide), "PNG")
    end_of_header = 8 + 25
    file = plain[:end_of_header] + png_chunk(b"tRNS", struct.pack(">H", 20000)) + plain[end_of_header:]
    np.testing.assert_array_equal(pixels(file)[0, :, 0], [0, 255, 255])


def test_16_bit_pgm() -> None:
    file = b"P5 3 1 65535\n" + struct.pack(">3H", 0, 32768, 65535)
    np.testing.assert_array_equal(pixels(file)[0, :, 0], [0, 128, 255])


@pytest.mark.parametrize("array", [np.ones((2, 2), np.float32), np.full((2, 2), 9, np.int32)])
def test_32_bit_greyscale_has_no_range_and_is_refused(array: NDArray[Any]) -> None:
    with pytest.raises(InvalidImageError, match=r"32-bit greyscale.*0\.\.255"):
        open_image(encoded(Image.fromarray(array), "TIFF"))


def test_palette_with_transparency() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 0, 255, 10, 20, 30])
    image.putdata([0, 1, 2])
    file = encoded(image, "PNG", transparency=bytes([255, 0, 128]))
    np.testing.assert_allclose(pixels(file)[0], [(255, 0, 0), (255, 255, 255), over_white((10, 20, 30), 128)], atol=1)
    assert Image.open(io.BytesIO(file)).mode == "P"


def test_rgba_la_and_their_premultiplied_forms() -> None:
    color = Image.new("RGBA", (2, 1), (10, 200, 30, 128))
    grey = Image.new("LA", (2, 1), (40, 51))
    for image, expected in [
        (color, over_white((10, 200, 30), 128)),
        (color.convert("RGBa"), over_white((10, 200, 30), 128)),
        (grey, over_white((40, 40, 40), 51)),
        (grey.convert("La"), over_white((40, 40, 40), 51)),
    ]:
        np.testing.assert_allclose(pixels(image)[0, 0], expected, atol=2)
    np.testing.assert_allclose(pixels(encoded(color, "PNG"))[0, 0], over_white((10, 200, 30), 128), atol=1)
    np.testing.assert_allclose(pixels(encoded(grey, "PNG"))[0, 0], over_white((40, 40, 40), 51), atol=1)
    transparent = Image.new("RGBA", (1, 1), (9, 9, 9, 0))
    np.testing.assert_array_equal(pixels(transparent)[0, 0], 255)


def test_greyscale_and_bilevel() -> None:
    np.testing.assert_array_equal(pixels(encoded(Image.new("L", (2, 2), 77), "PNG")), 77)
    np.testing.assert_array_equal(pixels(encoded(Image.new("1", (2, 2), 1), "PNG")), 255)
    keyed = encoded(Image.new("L", (2, 2), 77), "PNG", transparency=77)
    np.testing.assert_array_equal(pixels(keyed), 255)


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_of_an_animation_the_first_frame_is_taken(kind: str, options: dict[str, Any]) -> None:
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "lime", "blue")]
    file = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    animation = Image.open(io.BytesIO(file))
    assert animation.n_frames == 3  # type: ignore[attr-defined]
    np.testing.assert_array_equal(pixels(file), np.broadcast_to([255, 0, 0], (3, 4, 3)))
    animation.seek(2)
    np.testing.assert_array_equal(pixels(animation)[0, 0], (0, 0, 255))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000"])
def test_truncated(kind: str, tmp_path: Path) -> None:
    noise = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    file = encoded(noise, kind)
    path = tmp_path / "cut.img"
    path.write_bytes(file[: len(file) // 2])
    for image in (path, path.read_bytes()):
        with pytest.raises(InvalidImageError, match="image") as caught:
            open_image(image)
        assert "cut.img" in str(caught.value) or "bytes" in str(caught.value)
    with pytest.raises(InvalidImageError):
        open_image(file[:20])


@pytest.mark.parametrize("size", [(9460, 9460), (12000, 10000), (60000, 60000), (MAX_PIXELS + 1, 1)])
@pytest.mark.parametrize("action", ["error", "ignore"])
def test_too_large_is_seen_in_the_header(size: tuple[int, int], action: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(action, Image.DecompressionBombWarning)
        with pytest.raises(InvalidImageError, match=rf"too large.*at most {MAX_PIXELS} pixels"):
            open_image(hollow_png(*size))
        with pytest.raises(InvalidImageError, match=rf"too large.*at most {MAX_PIXELS} pixels"):
            upright_size(hollow_png(*size))
    with pytest.raises(InvalidImageError, match="cannot be decoded"):  # the pixels themselves are never reached above
        open_image(hollow_png(10, 10))


@pytest.mark.parametrize("shape", [(9460, 9460, 3), (0, 5, 3), (5, 0, 3)])
def test_arrays_of_impossible_size(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidImageError, match=r"too large|no pixels"):
        open_image(np.broadcast_to(np.uint8(0), shape))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\).*\(height, width, 3\)"),
        (np.zeros((3, 4, 4), np.uint8), r"shape \(3, 4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"shape \(1, 4, 4, 3\)"),
        (np.array(1, np.uint8), r"shape \(\)"),
        (np.zeros((4, 4, 3), np.float32), "dtype float32: expected uint8"),
        (np.zeros((4, 4, 3), np.int64), "dtype int64: expected uint8"),
        (np.zeros((4, 4, 3), bool), "dtype bool: expected uint8"),
    ],
)
def test_arrays_of_another_shape_or_dtype(array: NDArray[Any], message: str) -> None:
    with pytest.raises(InvalidImageError, match=message):
        open_image(array)


def test_files_that_are_no_images(tmp_path: Path) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("not a photo at all")
    empty = tmp_path / "empty.png"
    empty.touch()
    cases: list[tuple[ImageLike, str]] = [
        (text, r"notes\.jpg' is not an image file"),
        (str(empty), r"empty\.png' is not an image file"),
        (b"", "0 bytes is not an image file"),
        (b"%PDF-1.7", "8 bytes is not an image file"),
        (tmp_path / "none.jpg", r"none\.jpg' does not exist"),
        ("https://example.org/a.jpg", "is an address; addresses are not fetched"),
        (tmp_path, "is a folder"),
        ("", "does not exist"),
        ("a\0b", "cannot be decoded"),
        ("x" * 5000, r"'xxx.*… \(5000 characters\) cannot be opened \(File name too long\): give a path, or the bytes"),
    ]
    for image, message in cases:
        with pytest.raises(InvalidImageError, match=message):
            open_image(image)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:image/png;base64," + "iVBORw0KGgo" * 100_000, "is a data URI, not a path: give the bytes"),
        ("DATA:image/gif,x", "is a data URI"),
        ("iVBORw0KGgo" * 100_000, r"give a path, or the bytes of the file \(decode base64 first\)"),
        (Path("https://example.org/a.jpg"), "is an address; addresses are not fetched"),
        ("s3://bucket/a.png", "is an address"),
    ],
)
def test_what_is_no_path_is_told_in_a_short_message(text: str | Path, message: str) -> None:
    for read in (open_image, upright_size):
        with pytest.raises(InvalidImageError, match=message) as caught:
            read(text)
        assert len(str(caught.value)) < 300
        assert "check the path" not in str(caught.value)


def test_a_file_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(_file: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", locked)  # who runs tests as root may read everything
    with pytest.raises(InvalidImageError, match=r"secret\.png' may not be read; check its permissions"):
        open_image("secret.png")


@pytest.mark.parametrize("image", [None, 3, ["a.jpg"], object()])
def test_things_that_are_no_images(image: Any) -> None:
    with pytest.raises(InvalidImageError, match=f"{type(image).__name__}.*give a path"):
        open_image(image)


def test_formats_that_need_other_programs_are_refused() -> None:
    with pytest.raises(InvalidImageError, match="EPS file, which is not read"):
        open_image(encoded(Image.fromarray(COLORS), "EPS"))


def test_a_closed_pil_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(COLORS).save(path)
    image = Image.open(path)
    image.close()
    with pytest.raises(InvalidImageError, match="PIL image of mode RGB and size 7×5"):
        open_image(image)


def test_the_result_carries_no_metadata_of_the_original() -> None:
    file = encoded(Image.fromarray(COLORS), "PNG", icc_profile=b"a printer's profile", exif=Image.Exif())
    opened = open_image(file)
    assert opened.info == {}
    assert not opened.getexif()


FILES = [
    encoded(Image.fromarray(COLORS), kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000")
]


@given(st.sampled_from(FILES), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6), st.data())
@settings(max_examples=300)
def test_damaged_files_give_an_image_or_our_error(
    file: bytes, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    damaged = bytearray(file)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    del damaged[data.draw(st.integers(0, len(damaged))) :]
    try:
        opened = open_image(bytes(damaged))
    except InvalidImageError:
        return
    assert opened.mode == "RGB"
