"""One image file as 8-bit RGB: PNG or JPEG, whatever the file is called and holds besides.

What becomes of each kind of picture:

    grey, black and white, palette   the colours that they stand for
    alpha, transparency              left out: the colours are taken as they are stored, as torchvision's loader does
    CMYK, YCCK (JPEG)                converted, without a colour profile
    16 bits, grey                    value/257, rounded: 65535 becomes 255
    16 bits, colour or with alpha    the high byte, which is all that Pillow reads
    EXIF orientation                 applied, so that the image stands as viewers show it (torchvision's loader doesn't)
    several pictures (MPO, APNG)     the first
    floating point                   refused; nothing says which value is white
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from twinspike.errors import SpecError, refuse

FORMATS = ("PNG", "JPEG")
"""The only decoders that a file may ask for, whatever it is called. Pillow would take any by the content, and for
PostScript start another program."""

_ORIENTATION = 0x0112
"""EXIF tag; 1 is upright."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes it 1."""


def decode(file: Path, side: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """One image as (H, W, 3) RGB.

    Args:
        file: PNG or JPEG.
        side: (H, W) to which it is resized, bilinear, if it has another size.

    Raises:
        SpecError: it can't be decoded, or holds floating-point values; the line names it.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            upright = _UPRIGHT.get(_orientation(image))
            rgb = to_rgb(image, str(file))
            if upright is not None:
                rgb = rgb.transpose(upright)
            if side is not None and rgb.size != (side[1], side[0]):
                rgb = rgb.resize((side[1], side[0]), Image.Resampling.BILINEAR)
            return np.asarray(rgb)
    except UnidentifiedImageError as error:
        raise SpecError(f"{file}: can't be decoded: neither PNG nor JPEG; replace or remove it") from error
    except (SpecError, MemoryError):
        raise
    except Exception as error:  # of damaged files Pillow's readers raise what their code comes to, an IndexError say
        raise SpecError(f"{file}: can't be decoded: {' '.join(str(error).split())}; replace or remove it") from error


def to_rgb(image: Image.Image, what: str) -> Image.Image:
    """An opened image in mode RGB; see the module for what its mode means.

    Args:
        image: of any mode.
        what: the name under which errors speak of it.

    Raises:
        SpecError: the mode is one of floating point.
    """
    if image.mode == "F":
        raise refuse(
            what, expected="values of 8 or 16 bits", got="floating point", do="save it as 8-bit PNG, scaled as you mean it"
        )
    if image.mode.startswith("I"):  # 16 bits; older releases of Pillow call them I
        wide = np.asarray(image).astype(np.int64)
        image = Image.fromarray(np.clip((wide + 128) // 257, 0, 255).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB Pillow warns that transparency is lost
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """EXIF's number; 1 where there is none, or none that can be read: the picture may be whole."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception:  # as in `decode`
        return 1
    return found if isinstance(found, int) else 1
