"""Going on with a run whose last checkpoint or record is lost or damaged: one line, a way on, and nothing thrown away."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console
from training_runs import assert_equal_runs, lines, quiet, tiny, train
from typer.testing import CliRunner, Result

import twinspike as ts
from twinspike.parameters import STEP
from twinspike_training import checkpoint, files, loop, metrics, record
from twinspike_training.commands import app
from twinspike_training.progress import Progress
from twinspike_training.run import RunFolder, create, open_run, read_config

CHANGES = ("training.checkpoint_every_steps=1", "training.log_every=1")
KILLED_AT = 6
"""In the second of two epochs of 4 steps, so that the best checkpoint is that of step 4."""


class Stop(BaseException):
    """Ends a run where a kill would."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """An uninterrupted run."""
    return train(tmp_path_factory.mktemp("whole"), *CHANGES).folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that was killed in the step after `KILLED_AT`."""
    add = metrics.MetricsLog.add

    def stop(self: Any, pending: Any) -> None:
        if pending.step > KILLED_AT:
            raise Stop
        add(self, pending)

    out = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics.MetricsLog, "add", stop)
        with pytest.raises(Stop):
            train(out, *CHANGES)
    folder = open_run(out / "digits_cnn-001")
    assert checkpoint.load(folder.checkpoint("last")).header.steps == KILLED_AT
    assert checkpoint.load(folder.checkpoint("best")).header.steps == 4
    return folder


@pytest.fixture
def folder(killed: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(killed.path, tmp_path / "run")
    return open_run(tmp_path / "run")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def resumed(folder: RunFolder, which: str = "last") -> str:
    """What a resumed run that finished has said."""
    shown = io.StringIO()
    assert loop.resume(folder, None, Progress(Console(file=shown, width=1000)), which).finished
    return shown.getvalue()


def refused(folder: RunFolder, which: str = "last") -> str:
    """The one line of a refused resumption, which leaves the folder as it was."""
    before = content(folder)
    result = run("train", "--resume", str(folder.path), "--from", which)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert content(folder) == before
    return result.stderr.removeprefix("error: ").rstrip("\n")


def content(folder: RunFolder) -> dict[str, bytes | None]:
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.path.iterdir()}


def delete(path: Path) -> None:
    path.unlink()


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "purged")


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def alter(path: Path) -> None:
    altered = bytearray(path.read_bytes())
    altered[-1] ^= 1
    path.write_bytes(altered)


WAYS = {
    delete: "expected a checkpoint, got no such file",
    dangle: "expected a checkpoint, got a link to nothing",
    make_pipe: "expected a checkpoint, got a pipe",
    make_folder: "expected a checkpoint, got a folder",
    empty: "expected a safetensors file, got a broken or foreign one",
    alter: "expected values that match their digest, got a file that was altered or damaged",
}
"""How the last checkpoint is lost, and what is said of it."""


@pytest.mark.parametrize("lose", WAYS)
def test_without_its_last_checkpoint_a_run_goes_on_from_the_best_if_it_is_told_to(
    whole: RunFolder, folder: RunFolder, lose: Callable[[Path], None]
) -> None:
    last, before = folder.checkpoint("last"), folder.metrics.read_bytes()
    lose(last)
    assert refused(folder) == f"{last}: {WAYS[lose]}; --from best goes on from epoch 1 and takes back what came after it"
    if lose is make_folder:
        with pytest.raises(ts.SpecError, match=r"^checkpoint: expected room and permission to write it, got "):
            resumed(folder, "best")
        assert folder.metrics.read_bytes() == before
        return
    said = resumed(folder, "best")
    taken = folder.path / record.TAKEN_BACK
    assert f"goes on from {folder.checkpoint('best')}, after epoch 1; it took the place of {last}\n" in said
    assert f"{folder.metrics}: 2 lines after step 4 taken back, kept in {taken}\n" in said
    assert [json.loads(line)["step"] for line in taken.read_text().splitlines()] == [5, 6]
    assert before.endswith(taken.read_bytes())
    assert_equal_runs(whole, folder)


def test_a_good_last_checkpoint_gives_way_if_told_so(whole: RunFolder, folder: RunFolder) -> None:
    result = run("train", "--resume", str(folder.path), "--from", "best")
    assert result.exit_code == 0, result.output
    assert "taken back" in result.stdout
    assert "resumed after step 4 of 8" in result.stdout
    assert_equal_runs(whole, folder)


def test_a_kill_while_the_best_takes_its_place_loses_nothing(
    whole: RunFolder, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete(folder.checkpoint("last"))
    before = folder.metrics.read_bytes()

    def stop(*_: Any) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(record.os, "truncate", stop)
        with pytest.raises(Stop):
            loop.resume(folder, None, quiet(), "best")
    assert folder.metrics.read_bytes() == before
    assert "2 lines after step 4 taken back" in resumed(folder)
    assert_equal_runs(whole, folder)


@pytest.mark.parametrize("lose", [delete, alter])
def test_without_any_checkpoint_a_run_that_took_steps_is_not_started_over(
    folder: RunFolder, lose: Callable[[Path], None]
) -> None:
    last = folder.checkpoint("last")
    lose(last)
    lose(folder.checkpoint("best"))
    assert refused(folder) == f"{last}: {WAYS[lose]}; no best.safetensors can be read either; start a new run"
    assert refused(folder, "best") == f"{folder.checkpoint('best')}: {WAYS[lose]}"


def test_a_best_checkpoint_alone_shows_that_there_was_a_run(folder: RunFolder) -> None:
    delete(folder.checkpoint("last"))
    delete(folder.metrics)
    assert "got no such file; --from best goes on from epoch 1" in refused(folder)
    assert ": 0 bytes in whole lines are left of " in resumed(folder, "best")


def test_which_checkpoint(folder: RunFolder, tmp_path: Path) -> None:
    assert refused(folder, "first") == "checkpoint: expected last or best, got first"
    result = run("train", "--from", "best", "--out", str(tmp_path / "out"))
    assert (result.exit_code, result.stderr) == (2, "error: --from: expected --resume with it, got best\n")
    assert not (tmp_path / "out").exists()


SESSION = b'{"kind": "session", "step": 0}\n'


@pytest.mark.parametrize("text", [None, b"", SESSION, 2 * SESSION, SESSION + b'{"kind": "se'])
def test_a_run_killed_before_its_first_checkpoint_starts_from_the_beginning_and_says_so(
    whole: RunFolder, tmp_path: Path, text: bytes | None
) -> None:
    folder = create(tiny(tmp_path, *CHANGES))
    if text is not None:
        folder.metrics.write_bytes(text)
    said = resumed(folder)
    assert said.startswith(f"{folder.path} has no checkpoint and took no steps: starts from the beginning\n")
    assert ("taken back" in said) == bool(text)
    if text:
        assert (folder.path / record.TAKEN_BACK).read_bytes() == text.removesuffix(b"\n") + b"\n"
    assert_equal_runs(whole, folder)


def test_an_undisturbed_record_is_neither_cut_nor_talked_about(tmp_path: Path) -> None:
    finished = train(tmp_path, *CHANGES).folder
    before = content(finished)
    assert resumed(finished) == ""
    assert content(finished) == before


def test_what_a_killed_run_wrote_after_its_checkpoint_is_kept_aside(whole: RunFolder, folder: RunFolder) -> None:
    extra = b'{"kind": "step", "step": 7, "loss": 1.0}\n{"kind": "st'
    for _ in range(2):  # the second one is added to the first
        with folder.metrics.open("ab") as file:
            file.write(extra)
        length = checkpoint.load_header(folder.checkpoint("last")).metrics_bytes
        said = record.rewind(folder.metrics, length, KILLED_AT)
        assert said == [f"{folder.metrics}: 2 lines after step 6 taken back, kept in {folder.path / record.TAKEN_BACK}"]
    assert (folder.path / record.TAKEN_BACK).read_bytes() == 2 * (extra + b"\n")
    assert resumed(folder).startswith(f"run {folder.path}")
    assert_equal_runs(whole, folder)


@pytest.mark.parametrize("left", [0, 1, 0.5, -2, -1])
def test_a_record_shorter_than_the_checkpoint_says_is_cut_at_a_whole_line_aloud(folder: RunFolder, left: float) -> None:
    text = folder.metrics.read_bytes()
    size = int(len(text) * left) if left == 0.5 else int(left) % len(text)
    folder.metrics.write_bytes(text[:size])
    kept = text[: text.rfind(b"\n", 0, size) + 1]
    said = resumed(folder)
    assert f"{folder.metrics}: {len(kept):,} bytes in whole lines are left of {len(text):,} that were written by step 6\n" in said
    assert ("1 line after step 6 taken back" in said) == (len(kept) < size)
    assert folder.metrics.read_bytes().startswith(kept)
    assert [line["step"] for line in lines(folder)][-3:] == [7, 8, 8]  # every line is whole


def test_a_lost_record_is_begun_anew_aloud(folder: RunFolder) -> None:
    size = folder.metrics.stat().st_size
    delete(folder.metrics)
    assert f"{folder.metrics}: 0 bytes in whole lines are left of {size:,} that were written by step 6\n" in resumed(folder)
    assert [line["step"] for line in lines(folder)] == [7, 8, 8]


def test_a_record_that_does_not_end_a_line_where_the_checkpoint_says_is_cut_before(folder: RunFolder) -> None:
    text = folder.metrics.read_bytes()
    folder.metrics.write_bytes(text[:-1] + b" " + b'{"kind": "x"}\n')
    kept = text.rfind(b"\n", 0, len(text) - 1) + 1
    said = resumed(folder)
    assert f"{folder.metrics}: {kept:,} bytes in whole lines are left of {len(text):,} that were written by step 6\n" in said
    assert [line["step"] for line in lines(folder)][-3:] == [7, 8, 8]


def lead_elsewhere(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    elsewhere.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(elsewhere)


NO_FILE = {make_pipe: "a pipe", make_folder: "a folder", dangle: "a link", lead_elsewhere: "a link"}


@pytest.mark.parametrize("how", NO_FILE)
@pytest.mark.parametrize("name", ["metrics.jsonl", record.TAKEN_BACK])
def test_a_record_that_is_no_plain_file_is_one_line(folder: RunFolder, how: Callable[[Path], None], name: str) -> None:
    file = folder.path / name
    file.touch()
    how(file)
    for which in ("last", "best"):
        assert refused(folder, which) == f"{file}: expected a plain file, got {NO_FILE[how]}; move it away"


def test_a_record_that_can_not_be_opened_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ts.SpecError, match=r"^metrics: expected a file that can be written, got Is a directory: \S+$"):
        metrics.MetricsLog(tmp_path, np.asarray)


LEARNED = ("method.neuron.decay=1", "method.neuron.decay_scope=channel", "training.log_every=1")


def test_a_learned_decay_that_would_leave_its_range_stays_at_its_end_and_the_run_goes_on(tmp_path: Path) -> None:
    """OPT-8."""
    outcome = train(tmp_path, *LEARNED)
    assert outcome.finished
    state = checkpoint.load(outcome.folder.path / "last.safetensors").state
    assert max(value.max() for name, value in state.items() if name.endswith(".decay") and "/" not in name) == 1


def test_a_state_that_leaves_its_range_ends_the_run_with_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twinspike.reference.step.projected", lambda p, domain: p)
    with pytest.raises(ts.SpecError) as caught:
        train(tmp_path, *LEARNED, "training.checkpoint_every_steps=1")
    last = tmp_path / "digits_cnn-001" / "last.safetensors"
    line = str(caught.value)
    assert line.startswith("checkpoint[stem.act.decay]: neuron.decay: expected a finite number in [0, 1], got 1.0")
    assert line.endswith(f"; {last} keeps step 0; lower learning_rate in a new run")
    assert checkpoint.load(last).header.steps == 0


@pytest.mark.parametrize("how", [make_pipe, lead_elsewhere])
@pytest.mark.parametrize("name", ["last.safetensors", "best.safetensors", "config.json"])
def test_what_lies_where_a_file_is_written_is_neither_waited_for_nor_written_through(
    whole: RunFolder, folder: RunFolder, how: Callable[[Path], None], name: str
) -> None:
    part = folder.path / f".{name}.part"
    part.write_text("mine")
    how(part)
    assert loop.resume(folder, read_config(folder, ["training.log_every=2"]), quiet()).finished
    assert not os.path.lexists(part)
    assert not (folder.path / name).is_symlink()
    if how is lead_elsewhere:
        assert (folder.path.parent / "elsewhere").read_text() == "mine"


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(part: Path) -> None:
        part.write_text("half")
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        files.write_atomic(path, fail)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file", "old")]


def test_a_last_checkpoint_stays_where_the_record_can_not_be_taken_back(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(folder)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", str(folder.metrics))

    with monkeypatch.context() as patch:
        patch.setattr(record.os, "fsync", full)
        with pytest.raises(ts.SpecError, match="No space left on device"):
            loop.resume(folder, None, quiet(), "best")
    after = content(folder)
    del after[record.TAKEN_BACK]
    assert after == before


@pytest.mark.parametrize("lose", [delete, alter, empty])
def test_a_best_checkpoint_that_is_lost_is_said_and_made_anew(folder: RunFolder, lose: Callable[[Path], None]) -> None:
    best = folder.checkpoint("best")
    lose(best)
    assert f"the best checkpoint is lost ({best}: expected " in resumed(folder)
    assert checkpoint.load(best).header.best == checkpoint.load(folder.checkpoint("last")).header.best


def test_a_config_that_can_not_be_written_is_one_line_and_nothing_is_altered(folder: RunFolder) -> None:
    (folder.path / ".config.json.part").mkdir()
    before = content(folder)
    with pytest.raises(ts.SpecError, match=r"^run: expected a folder that can be written, got "):
        loop.resume(folder, read_config(folder, ["training.log_every=2"]), quiet())
    assert content(folder) == before


def test_a_position_that_the_data_do_not_have_is_refused(folder: RunFolder) -> None:
    last = folder.checkpoint("last")
    found = checkpoint.load(last)
    forged = msgspec.structs.replace(found.header, epoch=1, step=1, steps=8)
    checkpoint.save(last, forged, found.state | {STEP: np.asarray(8)})
    assert refused(folder) == (
        f"{last}: expected 4 steps an epoch, as the data and training.batch_size have, got step 1 of epoch 2, 8 in all"
    )


def test_names_reach_a_terminal_without_what_it_would_obey(tmp_path: Path) -> None:
    result = run("evaluate", str(tmp_path / "\x1b[31mred\x07"))
    assert result.exit_code == 2
    assert "\\x1b[31mred\\x07" in result.stderr
    assert "\x1b" not in result.stderr
