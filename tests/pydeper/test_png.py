"""PNG files that every viewer shows although Pillow refuses them: their metadata is damaged or very large."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pydeper.errors import InvalidImageError
from pydeper.images import open_image, upright_size

SCENE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8))
HEADER_END = 8 + 25


def saved(**options: object) -> bytes:
    buffer = io.BytesIO()
    SCENE.save(buffer, "PNG", **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def chunk(name: bytes, body: bytes, *, wrong: bool = False) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) ^ wrong)


def with_chunk(name: bytes, body: bytes, *, wrong: bool = False, at: int = HEADER_END) -> bytes:
    file = saved()
    return file[:at] + chunk(name, body, wrong=wrong) + file[at:]


def large_text() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "<x/>" + "history " * 200_000, zip=True)
    return saved(pnginfo=info)


def many_texts() -> bytes:
    info = PngImagePlugin.PngInfo()
    for number in range(70):
        info.add_text(f"note {number}", "x" * 1_000_000, zip=True)
    return saved(pnginfo=info)


FILES = {
    "a large XMP block": large_text(),
    "many texts": many_texts(),
    "a large profile": saved(icc_profile=bytes(1 << 21)),
    "a wrong checksum in a text": with_chunk(b"tEXt", b"Comment\0hello", wrong=True),
    "a wrong checksum in a text at the end": with_chunk(b"tEXt", b"Comment\0hello", wrong=True, at=-12),
    "a wrong checksum in EXIF": with_chunk(b"eXIf", b"II*\0rubbish", wrong=True),
    "a profile of an unknown method": with_chunk(b"iCCP", b"name\0\7rubbish"),
    "a size chunk cut short": with_chunk(b"pHYs", b"\0\0"),
}


@pytest.mark.parametrize("what", FILES)
def test_metadata_never_hides_the_picture(what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(FILES[what])
    for image in (path, FILES[what], io.BytesIO(FILES[what])):
        np.testing.assert_array_equal(np.asarray(open_image(image)), np.asarray(SCENE))
        assert upright_size(image) == (9, 6)


def test_orientation_and_transparency_are_kept_beside_a_damaged_text() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    clear = Image.new("RGB", (4, 2), (1, 2, 3))
    buffer = io.BytesIO()
    clear.save(buffer, "PNG", exif=exif, transparency=(1, 2, 3))
    file = buffer.getvalue()
    opened = open_image(file[:HEADER_END] + chunk(b"tEXt", b"a\0b", wrong=True) + file[HEADER_END:])
    assert (opened.size, opened.getpixel((0, 0))) == ((2, 4), (255, 255, 255))


def test_damaged_pixels_are_still_damaged() -> None:
    file = bytearray(with_chunk(b"tEXt", b"a\0b", wrong=True))
    place = file.index(b"IDAT") + 8
    file[place] ^= 0xFF
    with pytest.raises(InvalidImageError, match="damaged or cut short"):
        open_image(bytes(file))
    with pytest.raises(InvalidImageError):
        open_image(bytes(with_chunk(b"tEXt", b"a\0b", wrong=True)[:-30]))
