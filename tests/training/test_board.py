"""TensorBoard events: what they hold, and that losing them ends no run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from training_runs import lines, tiny, train

from twinspike_training import board, loop
from twinspike_training.config import load_config
from twinspike_training.progress import Progress

LOST = "TensorBoard events are lost from here on"


def _events(folder: Path) -> list[Any]:
    (file,) = (folder / board.FOLDER).iterdir()
    return [Event.FromString(record) for record in RawEventFileLoader(str(file)).Load()]


def test_every_number_of_the_record_is_an_event(tmp_path: Path) -> None:
    folder = train(tmp_path, "training.tensorboard=true").folder
    first, start, *rest = _events(folder.path)
    assert (first.file_version, start.session_log.status) == ("brain.Event:2", start.session_log.START)
    found = {(event.step, value.tag): value.simple_value for event in rest for value in event.summary.value}
    for line in lines(folder):
        name = "train/loss" if line["kind"] == "step" else "test/accuracy_snn"
        assert found[line["step"], name] == pytest.approx(line[name.partition("/")[2]], rel=2**-24)


def test_events_that_can_not_be_written_end_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, left = Path.open, [3]

    def full(self: Path, *words: Any, **more: Any) -> Any:
        if not self.name.startswith("events."):
            return right(self, *words, **more)
        file = right(Path("/dev/full"), "wb")
        flush = file.flush

        class Filling:
            """A disk that gets full after some writes."""

            write, close = file.write, file.close

            def flush(self) -> None:
                left[0] -= 1
                if left[0] <= 0:
                    flush()

        return Filling()

    alone = train(tmp_path / "alone").folder
    monkeypatch.setattr(Path, "open", full)
    shown = io.StringIO()
    outcome = loop.start(tiny(tmp_path, "training.tensorboard=true"), Progress(Console(file=shown, width=200)))
    assert outcome.finished
    assert shown.getvalue().count(LOST) == 1
    assert "No space left on device" in shown.getvalue()
    assert lines(outcome.folder) == lines(alone)


def test_a_place_for_events_that_is_none_ends_no_run(tmp_path: Path) -> None:
    folder = train(tmp_path, "training.epochs=1").folder
    (folder.path / board.FOLDER).write_text("a file")
    shown = io.StringIO()
    wanted = load_config(str(folder.config), ["training.tensorboard=true", "training.epochs=2"])
    assert loop.resume(folder, wanted, Progress(Console(file=shown, width=200))).finished
    assert shown.getvalue().count(LOST) == 1
