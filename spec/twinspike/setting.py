"""A network, method and optimizer with a state and batches: what joint steps start from, also as one file.

The file is an `.npz` of NumPy without pickled objects: every array of the state under its name, `images` and `labels` with an
axis for the batches in front, and `config`, the JSON text of an object with the keys network, method and optimizer.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike import plain
from twinspike.checks import check_batch
from twinspike.config import Method, Optimizer, decode, encode
from twinspike.errors import SpecError, require
from twinspike.network import Network
from twinspike.parameters import State, check_state, layout

_BATCHES = ("images", "labels")
_CONFIG = "config"


class Setting(msgspec.Struct, frozen=True):
    """One network, method and optimizer with a state and batches."""

    network: Network
    method: Method
    optimizer: Optimizer
    state: State
    images: tuple[NDArray[Any], ...]
    """One array for each batch, as `Program.train_step` takes them."""
    labels: tuple[NDArray[np.int64], ...]


class _Described(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    network: Network
    method: Method
    optimizer: Optimizer


def write(path: Path, setting: Setting) -> None:
    """Write a setting as a file; its batches must be of one shape."""
    described = _Described(setting.network, setting.method, setting.optimizer)
    batches = {name: np.stack(getattr(setting, name)) for name in _BATCHES}
    config = np.asarray(msgspec.json.encode(encode(described)).decode())
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, config=config, **batches, **setting.state)


def read(path: str | os.PathLike[str]) -> Setting:
    """What `write` wrote.

    Raises:
        SpecError: there is no such file, or it holds something else: another network's state, batches that do not fit.
    """
    wanted = "an .npz file of a network, its state and batches"
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as found:  # numpy leaves what it can't read open
            arrays: dict[str, NDArray[Any]] = dict(found)
    except FileNotFoundError:
        raise SpecError(f"{path}: expected {wanted}, got nothing") from None
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise SpecError(f"{path}: expected {wanted}, got {' '.join(str(error).split()) or 'another file'}") from None
    missing = [name for name in (_CONFIG, *_BATCHES) if name not in arrays]
    require(not missing, str(path), expected=wanted, got=f"no {', '.join(missing)}")
    config, images, labels = (arrays.pop(name) for name in (_CONFIG, *_BATCHES))
    described = decode(_Described, plain.from_json(str(config), f"{path}: config"), f"{path}: config")
    fits = images.ndim >= 1 and labels.ndim >= 1 and len(images) == len(labels) >= 1
    require(fits, f"{path}: batches", expected="one or more, images and labels of as many", got=f"{images.shape}, {labels.shape}")
    check_state(arrays, layout(described.network, described.method, described.optimizer), f"{path}: state")
    for batch in zip(images, labels, strict=True):
        check_batch(described.network, described.method, *batch)
    return Setting(described.network, described.method, described.optimizer, arrays, tuple(images), tuple(labels))
