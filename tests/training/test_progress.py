"""What is shown and written beside the metrics: a terminal's live lines, and TensorBoard only where it is there."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from training_runs import tiny, train

import twinspike as ts
from twinspike_numpy.backend import NumpyBackend, NumpySession
from twinspike_training import loop
from twinspike_training.progress import Progress
from twinspike_training.run import prepare


def test_a_terminal_of_80_columns_shows_everything(tmp_path: Path) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=80, color_system=None)
    loop.start(tiny(tmp_path, "training.log_every=1"), Progress(console))
    text = shown.getvalue()
    for part in (
        "epoch 2/2",
        "loss ",
        "cross entropy ann ",
        "distillation ",
        "feature ",
        "accuracy ann ",
        "spike rate ",
        " images/s",
        " left",
    ):
        assert part in text, part
    assert "…" not in text  # nothing was cut off


def test_a_missing_tensorboard_is_one_line_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("tensorboard"):
            raise ModuleNotFoundError(name="tensorboard")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ts.SpecError) as caught:
        train(tmp_path, "training.tensorboard=true")
    assert str(caught.value) == (
        "training.tensorboard: package 'tensorboard' is not installed; install it with: "
        "pip install 'twinspike[tensorboard]', or set training.tensorboard = false"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_compiled_session_says_once_what_takes_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def session(self: Any, device: str, precision: str, compiled: bool) -> NumpySession:
        return NumpySession(device, precision, compiled)

    monkeypatch.setattr(NumpyBackend, "session", session)  # the reference compiles nothing, but may say so
    said = {}
    for compiled in ("true", "false"):
        shown = io.StringIO()
        loop.start(tiny(tmp_path, f"compile={compiled}", f"name=compile-{compiled}"), Progress(Console(file=shown, width=200)))
        said[compiled] = shown.getvalue()
    lines = said["true"].splitlines()
    (begun,) = (i for i, line in enumerate(lines) if line.startswith("compiling the training step"))
    assert lines[begun + 1].startswith("compiled, and took the first step, in ")
    assert not any(line.startswith("compil") for line in said["false"].splitlines())


def test_a_run_compiles_as_its_backend_prefers_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = NumpyBackend.capabilities

    def session(self: Any, device: str, precision: str, compiled: bool) -> NumpySession:
        return NumpySession(device, precision, compiled)

    monkeypatch.setattr(NumpyBackend, "session", session)
    for prefers in (True, False):
        monkeypatch.setattr(
            NumpyBackend, "capabilities", lambda self, p=prefers: msgspec.structs.replace(right(self), prefers_compiled=p)
        )
        asked = {told: prepare(tiny(tmp_path, *told)).session.compiled for told in ((), ("compile=true",), ("compile=false",))}
        assert asked == {(): prefers, ("compile=true",): True, ("compile=false",): False}
