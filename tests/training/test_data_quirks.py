"""What the authors' script does otherwise: each quirk against Pillow or by hand, and the recipe that has them all."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from twinspike.config import decode
from twinspike.errors import SpecError
from twinspike_training.config import load_config
from twinspike_training.data import DataConfig, imageops, open_dataset
from twinspike_training.data.augment import DRAWS, vary
from twinspike_training.data.autoaugment import CIFAR10_POLICY, autoaugment
from twinspike_training.data.batch import Maker, Task
from twinspike_training.data.config import QUIRKS
from twinspike_training.data.draws import augment_uniforms
from twinspike_training.data.source import ArraySplit, Source

COUNT, HEIGHT, WIDTH = 30, 20, 24
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def images() -> Pixels:
    pixels = np.random.default_rng(1).integers(0, 256, (COUNT, 3, HEIGHT, WIDTH), dtype=np.uint8)
    pixels[:5] = np.where(pixels[:5] < 128, 0, 255)  # overshoots on either side
    return pixels


def transformed(images: Pixels, rows: list[tuple[float, ...]]) -> Pixels:
    out = []
    for pixels, row in zip(images, rows, strict=True):
        image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        moved = image.transform(image.size, Image.Transform.AFFINE, row, Image.Resampling.BICUBIC, fillcolor=(128,) * 3)
        out.append(np.asarray(moved).transpose(2, 0, 1))
    return np.stack(out)


SLOPES = np.r_[np.linspace(0, 0.3, 10), -np.linspace(0, 0.3, 10), np.linspace(-1.5, 1.5, COUNT - 20)]
"""AutoAugment's ten levels of either sign, and more."""


def test_bicubic_shears_are_pillow_s(images: Pixels) -> None:
    by_x = transformed(images, [(1, v, 0, 0, 1, 0) for v in SLOPES])
    assert np.array_equal(imageops.shear_x_bicubic(images, SLOPES), by_x)
    by_y = transformed(images, [(1, 0, 0, v, 1, 0) for v in SLOPES])
    assert np.array_equal(imageops.shear_y_bicubic(images, SLOPES), by_y)
    assert not np.array_equal(by_y, imageops.shear_y(images, SLOPES))


def drawn(policy: int, *rest: float) -> NDArray[np.float64]:
    return np.tile([(policy + 0.5) / 25, *rest], (COUNT, 1))


def test_each_quirk_changes_its_operation_alone(images: Pixels) -> None:
    every = [drawn(policy, 0.0, sign, 0.0, sign) for policy in range(25) for sign in (0.2, 0.7)]
    touched = {"bicubic_shear": ("shear_x", "shear_y"), "positive_rotation": ("rotate",)}
    for quirk, names in touched.items():
        for uniforms in every:
            changed = not np.array_equal(autoaugment(images.copy(), uniforms), autoaugment(images.copy(), uniforms, {quirk}))
            steps = CIFAR10_POLICY[int(uniforms[0, 0] * 25)]
            may = any(name in names and chance > 0 for name, chance, _ in steps)
            assert changed == (may and not (quirk == "positive_rotation" and uniforms[0, 2] == 0.7)), (quirk, steps)


def test_rotations_are_counter_clockwise_alone(images: Pixels) -> None:
    minus, plus = (drawn(1, 0.0, sign, 0.9, 0.0) for sign in (0.2, 0.7))
    turned = imageops.rotate(images, np.full(COUNT, 30.0 * 2 / 9))
    for uniforms in (minus, plus):
        assert np.array_equal(autoaugment(images.copy(), uniforms, {"positive_rotation"}), turned)
    assert not np.array_equal(autoaugment(images.copy(), minus), turned)


def test_sub_policy_16_equalizes_more_often(images: Pixels) -> None:
    equalized = imageops.equalize(images)
    for chance, quirky, plain in ((0.59, equalized, equalized), (0.79, equalized, images), (0.81, images, images)):
        uniforms = drawn(16, 0.9, 0.0, chance, 0.0)
        assert np.array_equal(autoaugment(images.copy(), uniforms, {"subpolicy_16"}), quirky)
        assert np.array_equal(autoaugment(images.copy(), uniforms), plain)


def test_quirks_change_no_draw(images: Pixels) -> None:
    uniforms = np.random.default_rng(3).random((COUNT, DRAWS))
    some, none = (vary(images.copy(), uniforms, {"crop", "flip", "autoaugment"}, quirks) for quirks in (set(QUIRKS), set()))
    equal = (some == none).all(axis=(1, 2, 3))
    assert 0 < equal.sum() < COUNT


def maker(images: Pixels, **fields: object) -> Maker:
    split = ArraySplit(images.reshape(COUNT, -1), np.zeros(COUNT, np.int64), (3, HEIGHT, WIDTH))
    source = Source(
        train=split, test=split, input_shape=(3, HEIGHT, WIDTH), event=False, classes=("a",), levels=255.0,
        mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 0.125),
    )  # fmt: skip
    return Maker(source, decode(DataConfig, {"name": "cifar10", "path": "x", "augment": ["cutout"], **fields}), 1)


def test_a_black_cutout_is_black_and_no_mean_colour(images: Pixels) -> None:
    task = Task(np.arange(COUNT), "train", True, 5, 2)
    (mean, _), (black, _) = maker(images)(task), maker(images, quirks=["black_cutout"])(task)
    rows, columns = (
        np.floor(u * size).astype(int) - size // 4
        for u, size in zip(augment_uniforms(5, 2, np.arange(COUNT), DRAWS)[:, 8:10].T, (HEIGHT, WIDTH), strict=True)
    )
    for i, (y, x) in enumerate(zip(rows, columns, strict=True)):
        square = np.zeros((HEIGHT, WIDTH), bool)
        square[max(y, 0) : y + HEIGHT // 2, max(x, 0) : x + WIDTH // 2] = True
        assert not mean[i][:, square].any()
        dark = (np.float32(0) - np.float32(255) * np.array([0.5, 0.4, 0.3])) / (255 * np.array([0.25, 0.5, 0.125]))
        assert np.allclose(black[i][:, square], dark[:, None], rtol=4 * 2.0**-24, atol=0)
        assert np.array_equal(black[i][:, ~square], mean[i][:, ~square])


def test_mean_and_deviation_may_be_given(images: Pixels) -> None:
    task = Task(np.arange(COUNT), "test")
    found, _ = maker(images, mean=[0.0, 0.5, 0.25], std=[1.0, 0.5, 0.25])(task)
    want = (images / 255 - np.array([0.0, 0.5, 0.25])[:, None, None]) / np.array([1.0, 0.5, 0.25])[:, None, None]
    assert np.abs(found - want).max() <= 8 * 2.0**-24 * 4
    digits = open_dataset(DataConfig(workers=0, mean=(0.0,), std=(1.0,)), time_steps=1)
    batch, _ = next(iter(digits.test_batches(360)))
    assert set(np.unique(batch * 16).tolist()) <= set(range(17))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"quirks": ["black_cutout", "black_cutout"]}, "data.quirks: expected different ones among black_cutout, bicubic_shear"),
        ({"quirks": ["cutout"]}, "quirks"),
        ({"std": [0.0, 1.0, 1.0]}, "data.std: expected finite numbers > 0, got (0.0, 1.0, 1.0)"),
        ({"mean": [float("nan")] * 3}, "data.mean: expected finite numbers, got (nan, nan, nan)"),
        ({"std": [1.0, 1.0]}, "data.std: expected one number for each of 3 channels, got (1.0, 1.0)"),
        ({"name": "events", "augment": "none", "std": [1.0, 1.0]}, "data.std: expected nothing with data.name = 'events', got"),
    ],
)
def test_wrong_configs(images: Pixels, fields: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        maker(images, **fields)


def test_the_recipe_of_the_authors_has_every_difference() -> None:
    config, paper = load_config("authors"), load_config("cifar10_resnet18")
    assert config.data.quirks == QUIRKS
    assert config.data.std == (0.2023, 0.1994, 0.2010)
    assert (config.method.linear_init, config.training.batch_size, config.training.drop_last) == ("fan_out", 1024, False)
    assert (config.optimizer, config.schedule, config.learning_rate) == (paper.optimizer, paper.schedule, paper.learning_rate)
    assert (config.method.loss, config.method.factorization) == (paper.method.loss, paper.method.factorization)
    assert config.training.epochs == paper.training.epochs == 300
