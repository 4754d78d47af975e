"""What a checkpoint says of images that lie in files: the class that each twin takes them for, and with which probability.

An image becomes what the run's test samples are: the same size, channels and normalization. Nothing is guessed: a file of
another size is refused unless it may be resized.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from twinspike.config import TWINS, Twin
from twinspike.errors import refuse, require
from twinspike_training.data.images import decode
from twinspike_training.evaluation import even
from twinspike_training.files import FILE, expand, found
from twinspike_training.run import Ready


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One twin's answer for one image."""

    label: str
    """Name of the class that the main exit's reduced logits are largest for, the first of equals (clause OUT-3)."""
    number: int
    """Of that class, from 0."""
    probabilities: tuple[float, ...]
    """(K,) softmax of these logits, in the order of the data's classes."""


class Predicted(msgspec.Struct, frozen=True, kw_only=True):
    """One image's answers."""

    image: str
    """As it was named."""
    twins: dict[Twin, Prediction]


def predict(
    ready: Ready, state: Any, images: Sequence[str], *, twins: Sequence[Twin] = TWINS, resize: bool = False
) -> list[Predicted]:
    """Classify image files.

    Args:
        ready: the run's program and data, whose classes and normalization are used.
        state: of the program; left as it was.
        images: PNG or JPEG files.
        twins: whose answers are wanted.
        resize: whether images of another size than the network's are resized, bilinear, rather than refused.

    Raises:
        SpecError: the run is one of event frames, or an image is not there, can't be decoded or has another size; one line.
    """
    network = ready.network
    expected, do = "a run on static images", "recordings of events are tested by twinspike evaluate"
    require(not network.event, "predict", expected=expected, got="one on frames of events", do=do)
    files = [_file(image) for image in images]  # all are there before any is computed with
    size = even(len(files), ready.config.training.batch_size)
    answers: list[Predicted] = []
    for first in range(0, len(files), size):
        part = files[first : first + size]
        raw = np.stack([_pixels(file, network.input_shape, resize or ready.config.data.size > 0) for file in part])
        found_ = ready.program.evaluate(state, ready.dataset.present(raw))
        logits = {"ann": found_.logits_ann, "snn": found_.logits_snn}
        scores = {twin: ready.session.to_numpy(logits[twin])[-1].astype(np.float64) for twin in twins}
        for i, image in enumerate(images[first : first + size]):
            answers.append(Predicted(image=image, twins={twin: _answer(ready, scores[twin][i]) for twin in twins}))
    return answers


def _answer(ready: Ready, logits: NDArray[np.float64]) -> Prediction:
    e = np.exp(logits - logits.max())
    number = int(logits.argmax())
    return Prediction(label=ready.dataset.classes[number], number=number, probabilities=tuple((e / e.sum()).tolist()))


def _file(image: str) -> Path:
    path = expand(image)
    what = found(path)
    require(what == FILE, "image", expected="a PNG or JPEG file", got=f"{what}: {image}")
    return path


def _pixels(file: Path, shape: tuple[int, int, int], resize: bool) -> NDArray[np.float32]:
    """(C, H, W), white being 1; colours become grey by ITU-R 601's luma where the network sees one channel."""
    channels, *side = shape
    image = decode(file, (side[0], side[1]) if resize else None)
    height, width = image.shape[:2]
    if [height, width] != side:
        wanted, got = f"{side[1]} x {side[0]} pixels, as the run's", f"{width} x {height}"
        raise refuse(str(file), expected=wanted, got=got, do="resize it, or let --resize do so")
    require(channels in (1, 3), "predict", expected="a network of 1 or 3 channels", got=channels)
    planes = np.asarray(Image.fromarray(image).convert("L"))[None] if channels == 1 else image.transpose(2, 0, 1)
    return planes.astype(np.float32) / np.float32(255)
