"""What a run writes down: one JSON object per line in `metrics.jsonl`, and TensorBoard events on request.

Kinds of line, told by `kind`:

- `session`: a start or resumption: backend, device, precision, versions, `step` it began at.
- `step`: one optimizer step: `step` counted from 1 over the run, `epoch` from 0, `learning_rate`, `samples`,
  loss parts (means over the batch), `accuracy_ann`, `accuracy_snn` (shares of the batch, main exit),
  `spike_rate` (per neuron and time step), `images_per_second` (since the host last waited).
- `certificate`: what was found of a judged step: `worst` error/bound and the quantity `at` which, `comparisons`, those left
  `open` since rounding turned a spike, `seconds` that it took.
- `epoch`: an evaluation after `epoch` completed epochs; see `evaluation`.

Step metrics stay on the device until `flush`, so that the host waits for it only every few steps.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Metrics, Values
from twinspike.errors import SpecError, refuse, require
from twinspike_training.board import Board
from twinspike_training.files import FILE, found

Series = NDArray[np.float64]

LOSS_PARTS = ("loss", "cross_entropy_ann", "cross_entropy_snn", "distillation", "feature", "penalty")
"""Fields of `Metrics` that are losses."""


class NotFiniteError(SpecError):
    """The loss became NaN or infinite; `step` is where, counted from 1."""

    def __init__(self, part: str, value: float, step: int) -> None:
        self.step = step
        super().__init__(str(refuse(part, expected="a finite number", got=f"{value} at step {step}")))


class Pending(msgspec.Struct, frozen=True):
    """One step whose metrics have not been waited for."""

    step: int
    epoch: int
    learning_rate: float
    samples: int
    metrics: Metrics


class MetricsLog:
    """Appends lines to a file; steps are kept back until `flush`."""

    def __init__(self, path: Path | None, to_numpy: Callable[[Any], Values], board: Board | None = None) -> None:
        """Open the file.

        Args:
            path: created if it is not there; a resumed run's is first brought back to its checkpoint (`record.rewind`). None
                writes nothing: another process keeps the record.
            to_numpy: waits for a value of the backend (`Session.to_numpy`).
            board: also gets every line.
        """
        try:
            # unbuffered: what could not be written is not tried again at the end
            self._file = None if path is None else path.open("ab", buffering=0)
        except OSError as error:
            raise refuse("metrics", expected="a file that can be written", got=f"{error.strerror}: {path}") from None
        self._to_numpy = to_numpy
        self._board = board
        self._pending: list[Pending] = []
        self._since = time.perf_counter()

    def add(self, pending: Pending) -> None:
        """Take a step's metrics without waiting for them."""
        self._pending.append(pending)

    def restart_clock(self) -> None:
        """Leave the time until now, spent on something else than steps, out of the next rate."""
        self._since = time.perf_counter()

    def flush(self) -> list[dict[str, Any]]:
        """Wait for all steps taken in, write them, and return their lines.

        Raises:
            NotFiniteError: a loss is NaN or infinite; the steps before it are written.
        """
        lines: list[dict[str, Any]] = []
        for pending in self._pending:
            metrics, size = pending.metrics, pending.samples
            values = {name: float(self._to_numpy(getattr(metrics, name))) for name in (*LOSS_PARTS, "spike_rate")}
            for part in LOSS_PARTS:
                if not math.isfinite(values[part]):
                    self._write(lines)
                    self._pending.clear()
                    raise NotFiniteError(part, values[part], pending.step)
            for twin in ("ann", "snn"):
                values[f"accuracy_{twin}"] = float(self._to_numpy(getattr(metrics, f"correct_{twin}"))) / size
            head = {"kind": "step", "step": pending.step, "epoch": pending.epoch, "learning_rate": pending.learning_rate}
            lines.append({**head, "samples": size, **values})
        now = time.perf_counter()
        rate = sum(pending.samples for pending in self._pending) / max(now - self._since, 1e-9)
        self._since = now
        for line in lines:
            line["images_per_second"] = round(rate, 1)
        self._pending.clear()
        self._write(lines)
        return lines

    def line(self, values: Mapping[str, Any]) -> None:
        """Write one line of another kind; steps taken in are to be flushed before."""
        self._write([dict(values)])

    def sync(self) -> int:
        """Put everything on disk; the file's length in bytes."""
        if self._file is None:
            return 0
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file; steps not flushed are dropped."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def _write(self, lines: list[dict[str, Any]]) -> None:
        if self._file is None:
            return
        left = memoryview(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise refuse("metrics", expected="room to write them", got=f"{error.strerror}: {self._file.name}") from None
        if self._board is not None:
            self._board.lines(lines)


def read(path: Path) -> list[dict[str, Any]]:
    """All lines of a metrics file; a last line cut off by a kill is left out.

    Raises:
        SpecError: no such file, or a line that is no JSON object.
    """
    what = found(path)
    require(what == FILE, "metrics", expected="the metrics.jsonl of a run", got=f"{path} ({what})")
    try:
        *whole, _ = path.read_bytes().split(b"\n")
    except OSError as error:
        raise refuse("metrics", expected="a file that can be read", got=f"{error.strerror}: {path}") from None
    lines = []
    for number, text in enumerate(whole, start=1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict) or not isinstance(line.get("kind"), str) or type(line.get("step")) is not int:
            raise refuse(f"{path} line {number}", expected="a JSON object with a kind and a step", got=ascii(text)[2:-1])
        lines.append(line)
    return lines


class _Step(msgspec.Struct):
    """What a `step` line has at the least."""

    epoch: int
    learning_rate: float
    loss: float
    cross_entropy_ann: float
    cross_entropy_snn: float
    distillation: float
    feature: float
    penalty: float
    accuracy_ann: float
    accuracy_snn: float
    spike_rate: float
    images_per_second: float


class _Validation(msgspec.Struct):
    """What it has of samples held out."""

    accuracy_ann: float
    accuracy_snn: float


class _Epoch(msgspec.Struct):
    """What an `epoch` line has at the least."""

    epoch: int
    accuracy_ann: float
    accuracy_snn: float
    cross_entropy_ann: float
    cross_entropy_snn: float
    spike_rate: float
    accuracy_exits_ann: list[float]
    accuracy_exits_snn: list[float]
    spike_rates: dict[str, float]
    deviation: dict[str, float]
    validation: _Validation | None = None


class _Certificate(msgspec.Struct):
    """What a `certificate` line has at the least."""

    worst: float
    comparisons: int
    open: int


def read_whole(path: Path) -> list[dict[str, Any]]:
    """As `read`, for who computes with the lines; SpecError also where a number is missing or not finite."""
    lines = read(path)
    for line in lines:
        kind = {"step": _Step, "epoch": _Epoch, "certificate": _Certificate}.get(line["kind"])
        where = f"{path}, the line of step {line['step']}"
        try:
            known = msgspec.to_builtins(msgspec.convert(line, kind)) if kind else {}
        except msgspec.ValidationError as error:
            raise refuse(where, expected=f"what a line of kind {line['kind']} has", got=str(error)) from None
        for name, value in known.items():
            numbers = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value or 0]
            require(all(map(_sensible, numbers)), where, expected=f"finite numbers in {name}", got=value)
        require(_sensible(line["step"]), where, expected="a step that can be", got=line["step"])
    return lines


def _sensible(number: float) -> bool:
    return -1e300 < number < 1e300


def series(lines: list[dict[str, Any]], kind: str, name: str) -> tuple[Series, Series]:
    """Steps and values of one quantity over lines of a kind, as two float64 arrays of equal length."""
    chosen = [line for line in lines if line["kind"] == kind and name in line]
    return np.array([line["step"] for line in chosen], float), np.array([line[name] for line in chosen], float)
