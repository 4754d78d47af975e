"""The authors' AutoAugment and cutout beside the recipe `authors`, on the same draws: equal pixels, or how many are not.

Their code asks the modules `random` and `numpy.random` for each decision; here it gets stand-ins that answer with the
specification's uniforms. Crop and flip are torchvision's in their script, and are done by their definition.
"""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from twinspike_training.config import load_config
from twinspike_training.data.augment import DRAWS, cover, vary

SIDE, PAD = 32, 4


class _Decisions:
    """`random`, as their policy calls it: the sub-policy, then for each step whether, and if so the sign."""

    def __init__(self, uniforms: NDArray[np.float64]) -> None:
        self._uniforms, self._step = uniforms, -1

    def randint(self, low: int, high: int) -> int:
        return low + int(self._uniforms[3] * (high - low + 1))

    def random(self) -> float:
        self._step += 1
        return float(self._uniforms[4 + 2 * self._step])

    def choice(self, signs: list[int]) -> int:
        return signs[int(self._uniforms[5 + 2 * self._step] >= 0.5)]


def _theirs(module: Any, policy: Any, image: NDArray[np.uint8], u: NDArray[np.float64]) -> NDArray[np.uint8]:
    padded = np.pad(image, ((0, 0), (PAD, PAD), (PAD, PAD)))
    y, x = (int(v * (2 * PAD + 1)) for v in u[:2])
    window = padded[:, y : y + SIDE, x : x + SIDE]
    window = window[:, :, ::-1] if u[2] < 0.5 else window
    module.random = _Decisions(u)
    varied = np.asarray(policy(Image.fromarray(np.ascontiguousarray(window.transpose(1, 2, 0)))))
    centre = iter(int(v * SIDE) for v in u[8:])
    module.np = SimpleNamespace(
        ones=np.ones, float32=np.float32, clip=np.clip, random=SimpleNamespace(randint=lambda _: next(centre))
    )
    covered = module.Cutout(n_holes=1, length=SIDE // 2)(torch.from_numpy(varied.transpose(2, 0, 1).copy()).float() / 255)
    return np.asarray((covered * 255).round().numpy().astype(np.uint8))


def different(count: int) -> int:
    """How many of `count` images, half of them noise, differ in a pixel before normalization; their folder on the path."""
    data = load_config("authors").data
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)
    coarse = rng.integers(0, 256, (count // 2, 3, 4, 4), dtype=np.uint8)
    images[: count // 2] = np.kron(coarse, np.ones((1, 1, SIDE // 4, SIDE // 4), np.uint8))
    uniforms = rng.random((count, DRAWS))
    ours = vary(images.copy(), uniforms, data.policies(), frozenset(data.quirks))
    if "black_cutout" in data.quirks:  # else it comes after normalization
        ours = cover(ours, uniforms, data.policies())
    module = importlib.import_module("functions.autoaug")
    # Their table of ranges names np.int, which NumPy withdrew.
    module.np = SimpleNamespace(**{name: getattr(np, name) for name in ("linspace", "round")}, int=int)  # type: ignore[attr-defined]
    policy = module.CIFAR10Policy()
    return sum(
        not np.array_equal(_theirs(module, policy, image, u), mine) for image, u, mine in zip(images, uniforms, ours, strict=True)
    )
