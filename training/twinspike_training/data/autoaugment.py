"""AutoAugment's CIFAR-10 policy: the table of the paper and its application to a batch.

Reference: Cubuk, Zoph, Mane, Vasudevan, Le, *AutoAugment: Learning Augmentation Strategies from Data*, CVPR
2019: appendix (the 25 sub-policies) and table of ranges. Levels 0 to 9 divide each range evenly. What the
paper leaves open is chosen as in common use: shears, shifts, rotations and the four enhancements take either
sign with equal chance, shifts are a share of the side (150/331 at level 9), pixels from outside are grey 128,
geometry is nearest neighbour. The quirks of the authors of Joint A-SNN (`config.Quirk`) change some of it.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet

import numpy as np
from numpy.typing import NDArray

from twinspike_training.data import imageops
from twinspike_training.data.config import Quirk

Images = NDArray[np.uint8]
Per = NDArray[np.float64]

_Step = tuple[str, float, int]
"""Operation, probability, level; the level means nothing to invert, autocontrast and equalize."""

CIFAR10_POLICY: tuple[tuple[_Step, _Step], ...] = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
)

_Enhance = Callable[[Images, Per], Images]


def _enhancing(operation: _Enhance) -> Callable[[Images, Per, Per], Images]:
    """Factor 1 +- 0.9 level/9: the paper's range 0.1 to 1.9."""
    return lambda images, share, sign: operation(images, 1.0 + 0.9 * share * sign)


def _moving(operation: _Enhance, most: float) -> Callable[[Images, Per, Per], Images]:
    return lambda images, share, sign: operation(images, most * share * sign)


OPERATIONS: dict[str, Callable[[Images, Per, Per], Images]] = {
    "shear_x": _moving(imageops.shear_x, 0.3),
    "shear_y": _moving(imageops.shear_y, 0.3),
    "translate_x": _moving(imageops.translate_x, 150 / 331),
    "translate_y": _moving(imageops.translate_y, 150 / 331),
    "rotate": _moving(imageops.rotate, 30.0),
    "color": _enhancing(imageops.color),
    "contrast": _enhancing(imageops.contrast),
    "brightness": _enhancing(imageops.brightness),
    "sharpness": _enhancing(imageops.sharpness),
    "posterize": lambda images, share, _: imageops.posterize(images, 8 - np.round(4 * share)),
    "solarize": lambda images, share, _: imageops.solarize(images, 256.0 * (1.0 - share)),
    "autocontrast": lambda images, *_: imageops.autocontrast(images),
    "equalize": lambda images, *_: imageops.equalize(images),
    "invert": lambda images, *_: imageops.invert(images),
}
"""Operation -> what it does to images (n, 3, H, W) at level/9 (n,) with a sign (n,) of +1 or -1."""

_QUIRKY: dict[Quirk, dict[str, Callable[[Images, Per, Per], Images]]] = {
    "bicubic_shear": {
        "shear_x": _moving(imageops.shear_x_bicubic, 0.3),
        "shear_y": _moving(imageops.shear_y_bicubic, 0.3),
    },
    "positive_rotation": {"rotate": lambda images, share, _: imageops.rotate(images, 30.0 * share)},
}

_NAMES = tuple(OPERATIONS)
_CODES = np.array([[_NAMES.index(step[0]) for step in pair] for pair in CIFAR10_POLICY])
_CHANCES = np.array([[step[1] for step in pair] for pair in CIFAR10_POLICY])
_CHANCES_16 = _CHANCES.copy()
_CHANCES_16[16, 1] = 0.8
_SHARES = np.array([[step[2] / 9 for step in pair] for pair in CIFAR10_POLICY])


def autoaugment(images: Images, uniforms: NDArray[np.float64], quirks: AbstractSet[Quirk] = frozenset()) -> Images:
    """Apply to each image one sub-policy, each of its two steps with its probability.

    Args:
        images: (n, 3, H, W) uint8, changed in place.
        uniforms: (n, 5) in [0, 1): the sub-policy; whether to take and with which sign the first step
            (below 1/2: minus); the same of the second.
        quirks: in which the authors of Joint A-SNN do otherwise.
    """
    operations = OPERATIONS | {name: f for quirk in sorted(quirks) for name, f in _QUIRKY.get(quirk, {}).items()}
    chances = _CHANCES_16 if "subpolicy_16" in quirks else _CHANCES
    chosen = np.floor(uniforms[:, 0] * len(CIFAR10_POLICY)).astype(np.int64)
    for step in range(2):
        taken = uniforms[:, 1 + 2 * step] < chances[chosen, step]
        sign = np.where(uniforms[:, 2 + 2 * step] < 0.5, -1.0, 1.0)
        codes = np.where(taken, _CODES[chosen, step], -1)
        for code in np.unique(codes[taken]).tolist():
            members = np.flatnonzero(codes == code)
            share = _SHARES[chosen[members], step]
            images[members] = operations[_NAMES[code]](images[members], share, sign[members])
    return images
