"""Checkpoints: nothing lost, nothing half written, and one line for every file that is none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save as to_bytes

import twinspike as ts
from twinspike_training import checkpoint, files
from twinspike_training.checkpoint import Best, Header
from twinspike_training.config import RunConfig
from twinspike_training.files import write_atomic

CONFIG = RunConfig(method=ts.Method(time_steps=2), optimizer=ts.SGD(momentum=0.9), seed=3)
NETWORK = ts.network("digits_cnn", width=2)


def header(**changes: Any) -> Header:
    plain = Header(
        backend="numpy", epoch=2, step=1, steps=7, best=Best(accuracy_snn=0.5, accuracy_ann=0.25, epoch=1),
        fingerprint="abc", metrics_bytes=11, config=CONFIG, network=NETWORK,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def state(dtype: Any = np.float64) -> ts.State:
    values = ts.initial_state(NETWORK, CONFIG.method, CONFIG.optimizer, seed=3)
    return {name: value.astype(dtype) if value.dtype.kind == "f" else value for name, value in values.items()}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_everything_comes_back_bit_for_bit(tmp_path: Path, dtype: Any) -> None:
    path = tmp_path / "last.safetensors"
    values = state(dtype)
    checkpoint.save(path, header(), values)
    found = checkpoint.load(path)
    assert msgspec.structs.replace(found.header, checksum=0) == header()
    assert found.state.keys() == values.keys()
    for name, value in values.items():
        assert found.state[name].dtype == value.dtype
        assert found.state[name].shape == value.shape
        assert found.state[name].tobytes() == value.tobytes(), name
    assert found.state["optimizer/step"].dtype == np.int64


def test_arrays_that_are_not_row_major_are_stored_by_value(tmp_path: Path) -> None:
    values = {name: np.asfortranarray(value) if value.ndim > 1 else value for name, value in state().items()}
    checkpoint.save(tmp_path / "a.safetensors", header(), values)
    found = checkpoint.load(tmp_path / "a.safetensors").state
    assert all(np.array_equal(found[name], value) for name, value in values.items())


def test_a_state_that_is_not_finite_or_does_not_fit_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    values = state()
    values["stem.conv.U"] = np.full_like(values["stem.conv.U"], np.nan)
    with pytest.raises(ts.SpecError, match=r"^checkpoint\[stem\.conv\.U\]: expected finite values, got NaN or infinity$"):
        checkpoint.save(path, header(), values)
    del values["stem.conv.U"]
    with pytest.raises(ts.SpecError, match=r"^checkpoint\[stem\.conv\.U\]: expected an array of shape"):
        checkpoint.save(path, header(), values)
    assert list(tmp_path.iterdir()) == []


def saved(tmp_path: Path) -> tuple[Path, bytes]:
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, header(), state())
    return path, path.read_bytes()


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ts.SpecError) as caught:
        checkpoint.load(path)
    line = str(caught.value)
    assert line.startswith(f"{path}")
    assert "\n" not in line
    return line


def test_an_option_that_was_withdrawn_says_what_to_do(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    old = msgspec.to_builtins(header())
    old["config"]["method"]["factorization"]["view"] = "permute"
    content = to_bytes({"w": np.zeros(3)}, metadata={checkpoint.KEY: msgspec.json.encode(old).decode()})
    assert refusal(path, content).startswith(f"{path}.config.method.factorization.view: no option any more")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path, content = saved(tmp_path)
    for size in (0, 1, 7, 8, 100, len(content) // 2, len(content) - 1):
        assert ": expected a safetensors file, got a broken or foreign one" in refusal(path, content[:size])


def test_every_altered_value_is_noticed(tmp_path: Path) -> None:
    path, content = saved(tmp_path)
    start = 8 + int.from_bytes(content[:8], "little")
    for place in (start, (start + len(content)) // 2, len(content) - 9):
        altered = bytearray(content)
        altered[place] ^= 1
        assert "got a file that was altered or damaged" in refusal(path, bytes(altered))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    assert "got a broken or foreign one" in refusal(path, b"PK\x03\x04" + bytes(200))
    assert "got a safetensors file from elsewhere" in refusal(path, to_bytes({"w": np.zeros(3)}))
    assert "its header is broken" in refusal(path, to_bytes({"w": np.zeros(3)}, metadata={"twinspike": "{"}))
    other = to_bytes({"w": np.zeros(3)}, metadata={"twinspike": '{"format": 99}'})
    assert refusal(path, other) == f"{path}: expected checkpoint format 1, got 99"
    assert "missing required field" in refusal(path, to_bytes({"w": np.zeros(3)}, metadata={"twinspike": '{"format": 1}'}))
    with pytest.raises(ts.SpecError, match=r"none\.safetensors: expected a checkpoint, got no such file$"):
        checkpoint.load(tmp_path / "none.safetensors")


def test_a_state_of_another_network_is_refused(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    text = msgspec.json.encode(header(network=ts.network("digits_cnn", width=3))).decode()
    line = refusal(path, to_bytes(state(), metadata={"twinspike": text}))
    assert line.startswith(f"{path}[stem.conv.U]: expected shape (3, 3, 3, 1), got (3, 3, 2, 1)")


@pytest.mark.parametrize("where", ["write", "sync", "replace"])
def test_a_failure_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError("no")

    if where == "sync":
        monkeypatch.setattr(files, "_sync", fail)
    if where == "replace":
        monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match=r"^no$"):
        write_atomic(path, fail if where == "write" else lambda part: part.write_text("new"))
    assert path.read_text() == "old"
    monkeypatch.undo()
    write_atomic(path, lambda part: part.write_text("new"))
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]  # what failed writes left was used up
