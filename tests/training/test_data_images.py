"""One image file: which formats are read, and what becomes of depths, modes, alpha and orientations."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twinspike.errors import SpecError
from twinspike_training.data.images import decode, to_rgb


def png(depth: int, kind: int, values: list[int]) -> bytes:
    """A PNG of one row, written here since Pillow writes no 16-bit colour; kind 0 grey, 2 RGB, 6 RGBA."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    width = len(values) // {0: 1, 2: 3, 6: 4}[kind]
    row = struct.pack(f">{len(values)}{'H' if depth == 16 else 'B'}", *values)
    head = struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")


def test_sixteen_bits_of_grey_are_scaled(tmp_path: Path) -> None:
    values = [*range(0, 65536, 13), 65535]
    (tmp_path / "x.png").write_bytes(png(16, 0, values))
    read = decode(tmp_path / "x.png")[0]
    assert np.array_equal(read[:, 0], read[:, 2])
    assert np.array_equal(read[:, 1], [round(value / 257) for value in values])


def test_of_sixteen_bits_of_colour_the_high_byte_is_read(tmp_path: Path) -> None:
    values = [0, 255, 256, 1000, 40000, 65535]
    for kind, content in ((2, values), (6, [*values[:3], 7, *values[3:], 65535])):
        (tmp_path / "x.png").write_bytes(png(16, kind, content))
        assert decode(tmp_path / "x.png").ravel().tolist() == [value >> 8 for value in values]


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_each_mode_of_sixteen_bits_is_scaled(mode: str) -> None:
    image = Image.new(mode, (1, 1), 20000)
    assert np.asarray(to_rgb(image, "x")).ravel().tolist() == [78] * 3


def test_floating_point_is_refused() -> None:
    with pytest.raises(SpecError, match=r"x.png: expected values of 8 or 16 bits, got floating point; save it as 8-bit PNG"):
        to_rgb(Image.new("F", (2, 2), 0.5), "x.png")


def test_alpha_is_left_out(tmp_path: Path) -> None:
    for name, image in {
        "rgba.png": Image.new("RGBA", (2, 2), (10, 20, 30, 0)),
        "la.png": Image.new("LA", (2, 2), (10, 128)),
        "rgb.png": Image.new("RGB", (2, 2), (10, 20, 30)),
    }.items():
        image.save(tmp_path / name, **({"transparency": (10, 20, 30)} if image.mode == "RGB" else {}))
        assert decode(tmp_path / name)[0, 0].tolist() == ([10] * 3 if image.mode == "LA" else [10, 20, 30])


@pytest.mark.parametrize("transparency", [None, 1, bytes([255, 0, 7])])
def test_a_palette_means_its_colours(tmp_path: Path, transparency: int | bytes | None) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([1, 2, 3, 40, 50, 60, 7, 8, 9])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "p.png", **({} if transparency is None else {"transparency": transparency}))
    assert decode(tmp_path / "p.png")[0].tolist() == [[1, 2, 3], [40, 50, 60], [7, 8, 9]]


def test_what_a_damaged_part_makes_pillow_raise_is_one_line(tmp_path: Path) -> None:
    exif, made = Image.Exif(), io.BytesIO()
    exif[0x0112] = 1
    Image.new("L", (2, 2)).save(made, "PNG", exif=exif)
    chunk = struct.pack(">I", 0) + b"iCCP" + struct.pack(">I", zlib.crc32(b"iCCP"))
    (tmp_path / "x.png").write_bytes(made.getvalue()[:-12] + chunk + made.getvalue()[-12:])  # after the pixels
    with pytest.raises(SpecError, match=r"x.png: can't be decoded: index out of range; replace or remove it"):
        decode(tmp_path / "x.png")


def test_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "x.png")
    assert decode(tmp_path / "x.png")[0].tolist() == [[255] * 3, [0] * 3]


def test_cmyk_is_converted(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 0, 0, 255)).save(tmp_path / "x.jpg", quality=100)
    assert decode(tmp_path / "x.jpg").max() <= 2


SIDES = {
    1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
    5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
}  # fmt: skip
"""EXIF's table of orientations (CIPA DC-008, tag 274): the sides of the upright image that the stored row 0 and column 0 are."""


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_stands_as_its_orientation_says(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = np.kron([[0, 80], [160, 240]], np.ones((8, 8), int)).astype(np.uint8)[:, :12]  # 16 high, 12 wide
    row, column = SIDES[orientation]
    stored = upright if row in ("top", "bottom") else upright.T
    stored = stored[::-1] if row in ("bottom", "right") else stored
    stored = stored[:, ::-1] if column in ("bottom", "right") else stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / f"x.{suffix}", exif=exif, **({"quality": 100} if suffix == "jpg" else {}))
    read = decode(tmp_path / f"x.{suffix}")
    assert read.shape == (16, 12, 3)
    assert np.abs(read[..., 0].astype(int) - upright).max() <= 2  # what JPEG loses


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("content", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", b"Exif\0\0"])
def test_an_orientation_that_can_not_be_read_is_upright(tmp_path: Path, content: bytes) -> None:
    Image.new("RGB", (4, 6), (1, 2, 3)).save(tmp_path / "x.png", exif=content)
    assert decode(tmp_path / "x.png").shape == (6, 4, 3)


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that a program called `gs` leaves when it is started; the folder of that program is first on the path."""
    program, trace = tmp_path / "bin" / "gs", tmp_path / "started"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {trace}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return trace


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def test_postscript_starts_no_program(tmp_path: Path, ghostscript: Path) -> None:
    for name in ("x.png", "x.jpg", "x.eps"):
        file = tmp_path / name
        file.write_bytes(POSTSCRIPT)
        with pytest.raises(SpecError, match=r"x\.\w+: can't be decoded: neither PNG nor JPEG; replace or remove it$"):
            decode(file)
    assert not ghostscript.exists()
    with Image.open(file) as image, pytest.raises(OSError):  # noqa: PT011 - whatever it says: the program makes no picture
        image.load()
    assert ghostscript.exists()  # so the trap works


@pytest.mark.parametrize("kind", ["BMP", "GIF", "ICO", "JPEG2000", "PCX", "PPM", "SGI", "TGA", "TIFF", "WEBP"])
@pytest.mark.parametrize("name", ["x.png", "x.jpeg"])
def test_other_formats_are_refused_whatever_their_name(tmp_path: Path, kind: str, name: str) -> None:
    content = io.BytesIO()
    Image.new("RGB", (16, 16), (1, 2, 3)).save(content, kind)
    (tmp_path / name).write_bytes(content.getvalue())
    with pytest.raises(SpecError, match=rf"{name}: can't be decoded: neither PNG nor JPEG; replace or remove it$"):
        decode(tmp_path / name)


def test_a_name_chooses_no_decoder(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "a.jpg", "PNG")
    assert decode(tmp_path / "a.jpg")[0, 0].tolist() == [1, 2, 3]


def pictures() -> tuple[bytes, bytes]:
    """Two pictures in one file, as phones write them (MPO), and the first of them alone (JPEG)."""
    several, one = io.BytesIO(), io.BytesIO()
    first, second = (Image.new("RGB", (8, 8), (value, 0, 9)) for value in (20, 200))
    first.save(several, "MPO", save_all=True, append_images=[second])
    first.save(one, "JPEG")
    return several.getvalue(), one.getvalue()


def test_of_several_pictures_in_a_file_the_first_is_read(tmp_path: Path) -> None:
    (tmp_path / "two.jpg").write_bytes(pictures()[0])
    (tmp_path / "one.jpg").write_bytes(pictures()[1])
    with Image.open(tmp_path / "two.jpg", formats=("JPEG",)) as image:
        assert image.format == "MPO"  # Pillow hands it over
    assert np.array_equal(decode(tmp_path / "two.jpg"), decode(tmp_path / "one.jpg"))


@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO file:UserWarning")
def test_a_damaged_index_of_pictures_changes_nothing(tmp_path: Path) -> None:
    content, one = pictures()
    (tmp_path / "one.jpg").write_bytes(one)
    expected, file = decode(tmp_path / "one.jpg"), tmp_path / "two.jpg"
    start = content.index(b"MPF\0")
    for place in range(start, start + 102):
        for bits in (0x01, 0x80, 0xFF):
            altered = bytearray(content)
            altered[place] ^= bits
            file.write_bytes(altered)
            assert np.array_equal(decode(file), expected)
