"""Checkpoints: nothing lost, nothing half written, and one line for every file that is none."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save as to_bytes

import twinspike as ts
from twinspike.network import Branch, GlobalPool, Linear
from twinspike_training import checkpoint, files
from twinspike_training.checkpoint import Best, Header
from twinspike_training.config import RunConfig
from twinspike_training.files import write_atomic

CONFIG = RunConfig(precision="f64", method=ts.Method(time_steps=2), optimizer=ts.SGD(momentum=0.9), seed=3)
STEPS = 7
NETWORK = ts.network("digits_cnn", width=2)


def header(**changes: Any) -> Header:
    plain = Header(
        backend="numpy", epoch=2, step=1, steps=STEPS, best=Best(accuracy_snn=0.5, accuracy_ann=0.25, epoch=1),
        fingerprint="abc", metrics_bytes=11, config=CONFIG, network=NETWORK,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def state(dtype: Any = np.float64, config: RunConfig = CONFIG, network: ts.Network = NETWORK) -> ts.State:
    values = ts.initial_state(network, config.method, config.optimizer, seed=3)
    values["optimizer/step"] = np.array(STEPS)
    return {name: value.astype(dtype) if value.dtype.kind == "f" else value for name, value in values.items()}


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", np.float32), ("f32-ieee", np.float32), ("f64", np.float64)])
def test_everything_comes_back_bit_for_bit(tmp_path: Path, precision: str, dtype: Any) -> None:
    path = tmp_path / "last.safetensors"
    values = state(dtype)
    written = header(config=msgspec.structs.replace(CONFIG, precision=precision))
    checkpoint.save(path, written, values)
    found = checkpoint.load(path)
    assert checkpoint.load_header(path) == found.header
    assert msgspec.structs.replace(found.header, arrays=written.arrays, checksum=written.checksum) == written
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


def test_an_option_that_was_withdrawn_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, path = checkpoint.encode, tmp_path / "last.safetensors"

    def of_old(written: Header) -> Any:
        data = encode(written)
        data["config"]["method"]["factorization"]["view"] = "permute"
        return data

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "encode", of_old)
        checkpoint.save(path, header(), state())
    with pytest.raises(ts.SpecError) as caught:
        checkpoint.load(path)
    assert str(caught.value).startswith(f"{path}.config.method.factorization.view: no option any more")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path, content = saved(tmp_path)
    for size in (0, 1, 7, 8, 100):
        assert refusal(path, content[:size]).endswith(": expected a safetensors file, got a broken or foreign one")
    for size in (len(content) // 2, len(content) - 1):
        assert f": expected {len(content):,} bytes, got {size:,} bytes: " in refusal(path, content[:size])
        with pytest.raises(ts.SpecError, match="bytes, got"):
            checkpoint.load_header(path)
    assert f": expected {len(content):,} bytes, got {len(content) + 1:,} bytes: " in refusal(path, content + b"\0")


SMALL = ts.Network(
    name="small", input_shape=(1, 2, 2),
    layers=(GlobalPool(name="p", input="input"), Linear(name="h", input="p", out_features=2)),
    exits=(Branch(feature="p", head="h"),),
)  # fmt: skip
"""One layer of one array each: a file of a few thousand bytes, which can be altered byte by byte."""


def test_every_altered_byte_of_the_header_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, header(network=SMALL), state(network=SMALL))
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    file = bytearray(content)
    with path.open("r+b", buffering=0) as stream:
        for place in range(end):
            for value in {content[place] ^ 1, content[place] ^ 0x10, content[place] ^ 0x80, ord("0"), ord(" "), 0xFF}:
                if value == content[place]:
                    continue
                file[place] = value
                stream.seek(0)
                stream.write(file)
                for read in (checkpoint.load, checkpoint.load_header):
                    with pytest.raises(ts.SpecError) as caught:
                        read(path)
                    assert str(caught.value).startswith(f"{path}: ")
                    assert "\n" not in str(caught.value)
            file[place] = content[place]
    path.write_bytes(content)
    assert checkpoint.load(path).header.network == SMALL


def test_every_altered_value_is_noticed(tmp_path: Path) -> None:
    path, content = saved(tmp_path)
    start = 8 + int.from_bytes(content[:8], "little")
    for place in (start, *range(start + 1, len(content) - 1, (len(content) - start) // 64), len(content) - 1):
        altered = bytearray(content)
        altered[place] ^= 1
        assert refusal(path, bytes(altered)).endswith(
            "expected values that match their digest, got a file that was altered or damaged"
        )
        checkpoint.load_header(path)  # which has not seen them


def test_other_files_are_refused(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    assert "got a broken or foreign one" in refusal(path, b"PK\x03\x04" + bytes(200))
    for inner in (b"[" * 100_000, b"{" + b'"a":{' * 50_000, b'"\\ud800"', b"\xff", b"[]", b"1" * 5000):
        assert "got a broken or foreign one" in refusal(path, len(inner).to_bytes(8, "little") + inner)
    for metadata in (b'{"__metadata__":1}', b'{"__metadata__":{"twinspike":{}}}'):
        assert "got a safetensors file from elsewhere" in refusal(path, len(metadata).to_bytes(8, "little") + metadata)
    assert "got a safetensors file from elsewhere" in refusal(path, to_bytes({"w": np.zeros(3)}))
    for text in ("{", "[]", "[" * 100_000):
        assert refusal(path, to_bytes({"w": np.zeros(3)}, metadata={"twinspike": text})) == f"{path}: its header is broken"
    for text in ('{"format": 2}', '{"format": 2, "checksum": ""}', '{"format": 2, "checksum": []}'):
        assert "expected a header that matches its digest" in refusal(path, to_bytes({}, metadata={"twinspike": text}))
    with pytest.raises(ts.SpecError, match=r"none\.safetensors: expected a checkpoint, got no such file$"):
        checkpoint.load(tmp_path / "none.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    longest = tmp_path / ("n" * 300)
    for place, what in ((tmp_path, "a folder"), (tmp_path / "pipe.safetensors", "a pipe"), (longest, "File name too long")):
        with pytest.raises(ts.SpecError, match=rf"expected a checkpoint, got {what}$"):
            checkpoint.load(place)


@pytest.mark.parametrize("version", [1, 3, "2", None, True])
def test_another_format_is_refused_with_a_way_out(tmp_path: Path, version: object) -> None:
    path, _ = saved(tmp_path)
    text = msgspec.json.encode({"format": version, "checksum": 1234}).decode()
    assert refusal(path, to_bytes({"w": np.zeros(3)}, metadata={"twinspike": text})) == (
        f"{path}: expected checkpoint format 2, got {version!r}; "
        "read it with the version of Twinspike that wrote it, or train anew"
    )


@pytest.mark.parametrize("version", ["0.0.9", "0.1.1", "9.9", ""])
def test_another_specification_is_refused_with_a_way_out(tmp_path: Path, version: str) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, header(spec=version), state())
    for read in (checkpoint.load, checkpoint.load_header):
        with pytest.raises(ts.SpecError) as caught:
            read(path)
        assert str(caught.value) == (
            f"{path}: expected a checkpoint under specification {ts.__version__}, got {version!r}; "
            "read it with the version of Twinspike that wrote it, or train anew"
        )


BEST = Best(accuracy_snn=0.5, accuracy_ann=0.25, epoch=1)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"epoch": -1}, "epoch: expected a whole number >= 0, got -1"),
        ({"step": -1}, "step: expected a whole number >= 0, got -1"),
        ({"steps": -7}, "steps: expected a whole number >= 0, got -7"),
        ({"metrics_bytes": -1}, "metrics_bytes: expected a whole number >= 0, got -1"),
        ({"steps": 8}, "steps: expected those of 2 equal epochs and 1 of the next, got 8"),
        ({"steps": 0}, "steps: expected those of 2 equal epochs and 1 of the next, got 0"),
        ({"steps": 1}, "steps: expected those of 2 equal epochs and 1 of the next, got 1"),
        ({"step": 5}, "steps: expected those of 2 equal epochs and 5 of the next, got 7"),
        ({"epoch": 0, "best": None}, "steps: expected those of 0 equal epochs and 1 of the next, got 7"),
        ({"best": msgspec.structs.replace(BEST, epoch=3)}, "best.epoch: expected one of the 2 completed epochs, got 3"),
        ({"step": "1"}, "Header.step: Expected `int`, got `str`"),
    ],
)  # fmt: skip
def test_a_position_that_no_run_has_is_refused(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ts.SpecError) as caught:
        header(**changes)
    assert str(caught.value) == line


@pytest.mark.parametrize(("epoch", "step", "steps"), [(0, 0, 0), (0, 3, 3), (1, 0, 1), (1, 3, 6), (2, 3, 9)])
def test_positions_of_runs(epoch: int, step: int, steps: int) -> None:
    assert header(epoch=epoch, step=step, steps=steps, best=None).steps == steps


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"accuracy_snn": 1.5}, "best.accuracy_snn: expected a share in [0, 1], got 1.5"),
        ({"accuracy_ann": -0.1}, "best.accuracy_ann: expected a share in [0, 1], got -0.1"),
        ({"accuracy_snn": float("nan")}, "best.accuracy_snn: expected a share in [0, 1], got nan"),
        ({"epoch": -1}, "best.epoch: expected a whole number >= 0, got -1"),
    ],
)
def test_a_best_that_can_not_be_is_refused(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ts.SpecError) as caught:
        msgspec.structs.replace(BEST, **changes)
    assert str(caught.value) == line


def forged(monkeypatch: pytest.MonkeyPatch, path: Path, values: ts.State, written: Header) -> str:
    """The refusal of a file that was written with its digests and without being checked; writing it checked is refused alike."""
    with pytest.raises(ts.SpecError) as unwritten:
        checkpoint.save(path, written, values)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "check", lambda *_: None)
        checkpoint.save(path, written, values)
    with pytest.raises(ts.SpecError) as unread:
        checkpoint.load(path)
    line = str(unread.value).removeprefix(str(path))
    assert str(unwritten.value) == f"checkpoint{line}"
    return line


def test_a_state_of_another_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = forged(monkeypatch, tmp_path / "a.safetensors", state(), header(network=ts.network("digits_cnn", width=3)))
    assert line == "[stem.conv.U]: expected shape (3, 3, 3, 1), got (3, 3, 2, 1)"


def test_a_state_of_another_step_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {**state(), "optimizer/step": np.array(8)}
    assert forged(monkeypatch, tmp_path / "a.safetensors", values, header()) == "[optimizer/step]: expected the header's 7, got 8"


def test_a_state_in_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = forged(monkeypatch, tmp_path / "a.safetensors", state(np.float32), header())
    assert line == "[stem.conv.U]: expected float64, got float32"


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


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    """As root it would be gone; a socket stands for one, since root alone makes devices."""
    path = tmp_path / "a"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        with pytest.raises(
            ts.SpecError, match="a: expected a file, or a name that is free, got no plain file; give another name"
        ):
            write_atomic(path, lambda part: part.write_text("new"))
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert path.is_socket()
