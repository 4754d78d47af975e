"""TensorBoard events of a run's numbers, written without a framework; as all that is only looked at, they never end a run."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from twinspike.errors import SpecError

FOLDER = "tensorboard"
"""Folder of events in a run's folder."""

_COUNT = itertools.count()
"""Tells the files apart that one process makes within a second."""


def tensorboard_modules() -> tuple[Any, Any, Any]:
    """TensorBoard's messages and its records; SpecError that says what to install where they are missing."""
    names = ("compat.proto.event_pb2", "compat.proto.summary_pb2", "summary.writer.record_writer")
    try:
        event, summary, record = (importlib.import_module(f"tensorboard.{name}") for name in names)
    except ImportError as error:
        raise SpecError(
            f"training.tensorboard: package {error.name or 'tensorboard'!r} is not installed; install it with: "
            "pip install 'twinspike[tensorboard]', or set training.tensorboard = false"
        ) from None
    return event, summary, record


class Board:
    """Events of the numbers in each line of a record.

    They are written here and not by TensorBoard's own thread, whose end is a traceback and which tells of a full disk much later.
    """

    def __init__(self, folder: Path, step: int, note: Callable[[str], object]) -> None:
        """Open a file of events.

        Args:
            folder: of the run; events go into `FOLDER` below it.
            step: that the session begins at; TensorBoard forgets what an earlier session wrote beyond it.
            note: told once if events are lost.
        """
        event, summary, record = tensorboard_modules()
        self._event: Any = event.Event
        self._summary: Any = summary.Summary
        self._record: Any = record.RecordWriter
        self._note = note
        self._file: IO[bytes] | None = None
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_COUNT)}"
        try:
            (folder / FOLDER).mkdir(exist_ok=True)
            self._file = (folder / FOLDER / name).open("xb")
        except OSError as error:
            self._lose(error)
        session = event.SessionLog(status=event.SessionLog.START)
        now = time.time()
        self._write([event.Event(wall_time=now, file_version="brain.Event:2")])
        self._write([event.Event(wall_time=now, step=step, session_log=session)])

    def lines(self, lines: list[dict[str, Any]]) -> None:
        """Write lines' numbers under `kind/name`."""
        self._write([self._numbers(line) for line in lines if line["kind"] != "session"])

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._attempt(self._file.close)

    def _numbers(self, line: Mapping[str, Any]) -> Any:
        prefix = {"step": "train", "certificate": "certificate"}.get(line["kind"], "test")
        values = []
        for key, value in line.items():
            inner = value if isinstance(value, dict) else {"": value}
            for name, number in inner.items():
                if key not in ("kind", "step") and isinstance(number, int | float):
                    tag = f"{prefix}/{key}/{name}".rstrip("/")
                    values.append(self._summary.Value(tag=tag, simple_value=float(number)))
        return self._event(wall_time=time.time(), step=line["step"], summary=self._summary(value=values))

    def _write(self, events: list[Any]) -> None:
        file = self._file
        if file is None:
            return

        def write() -> None:
            for event in events:
                self._record(file).write(event.SerializeToString())
            file.flush()

        self._attempt(write)

    def _attempt(self, call: Callable[[], object]) -> None:
        try:
            call()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        file, self._file = self._file, None
        reason = error.strerror or str(error)
        self._note(f"TensorBoard events are lost from here on ({reason}); the run goes on, and its record is metrics.jsonl")
        if file is not None:
            with contextlib.suppress(OSError):  # what is left in its buffer is lost, as was said
                file.close()
