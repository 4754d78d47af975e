"""A network, its state and batches as a file: what is written is read, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinspike import SGD, Method, initial_state, network
from twinspike.errors import SpecError
from twinspike.setting import Setting, read, write


def small() -> Setting:
    """Two batches of digits."""
    net, method, optimizer = network("digits_cnn", width=2, input_shape=(1, 8, 8), classes=3), Method(), SGD(momentum=0.9)
    rng = np.random.default_rng(0)
    images = tuple(rng.standard_normal((4, 1, 8, 8)) for _ in range(2))
    labels = tuple(rng.integers(0, 3, 4) for _ in range(2))
    return Setting(net, method, optimizer, initial_state(net, method, optimizer, seed=1), images, labels)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    given = small()
    write(tmp_path / "s.npz", given)
    found = read(tmp_path / "s.npz")
    assert (found.network, found.method, found.optimizer) == (given.network, given.method, given.optimizer)
    assert found.state.keys() == given.state.keys()
    for one, other in zip(
        (*given.state.values(), *given.images, *given.labels), (*found.state.values(), *found.images, *found.labels), strict=True
    ):
        assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes())


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "no config": ({"config": None}, "got no config"),
    "no batches": ({"images": None, "labels": None}, "got no images, labels"),
    "no JSON": ({"config": "{"}, "config: expected JSON"),
    "another config": ({"config": "{}"}, "missing required field `network`"),
    "a state of another network": ({"stem.conv.U": None}, r"state\[stem.conv.U\]: expected an array of shape"),
    "an unknown array": ({"x": np.zeros(1)}, "state: expected the names of its network"),
    "not a number": ({"images": np.full((2, 4, 1, 8, 8), np.nan)}, "images: expected finite values"),
    "labels without a class": ({"labels": np.full((2, 4), 3)}, "labels: expected values 0 to 2"),
    "batches that are none": ({"labels": np.zeros((1, 4), np.int64)}, "batches: expected one or more"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_anything_else_is_refused_in_a_line(tmp_path: Path, change: str) -> None:
    write(tmp_path / "s.npz", small())
    with np.load(tmp_path / "s.npz") as file:
        arrays = dict(file)
    changes, told = CHANGES[change]
    arrays = {name: value for name, value in (arrays | changes).items() if value is not None}
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(SpecError, match=told) as error:
        read(tmp_path / "t.npz")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive", b"\x93NUMPY\x01\x00"])
def test_other_files_are_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.npz").write_bytes(content)
    for path in (tmp_path / "s.npz", tmp_path / "none.npz", tmp_path):
        with pytest.raises(SpecError, match=r"expected an \.npz file of a network, its state and batches") as error:
            read(path)
        assert "\n" not in str(error.value)


def test_objects_are_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", config=np.array([{}], dtype=object))
    with pytest.raises(SpecError, match=r"expected an \.npz file"):
        read(tmp_path / "s.npz")
