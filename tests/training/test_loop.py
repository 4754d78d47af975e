"""The loop: what a run leaves behind, and that stopping and going on changes nothing."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console
from training_runs import assert_equal_runs, lines, quiet, tiny, train

import twinspike as ts
from twinspike_training import checkpoint, loop, metrics
from twinspike_training.data import Dataset
from twinspike_training.lock import LOCK
from twinspike_training.loop import Outcome
from twinspike_training.progress import Progress
from twinspike_training.run import create, open_run, prepare, read_config, reconcile


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """An uninterrupted run."""
    return train(tmp_path_factory.mktemp("whole"), "training.checkpoint_every_steps=3")


def test_a_run_leaves_its_config_metrics_and_checkpoints(whole: Outcome) -> None:
    folder = whole.folder
    assert folder.path.name == "digits_cnn-001"
    assert sorted(p.name for p in folder.path.iterdir()) == [
        "best.safetensors", "config.json", "last.safetensors", "metrics.jsonl"
    ]  # fmt: skip
    assert whole.finished
    assert whole.steps == 8
    found = lines(folder)
    assert [line["step"] for line in found if line["kind"] == "step"] == list(range(1, 9))
    assert [(line["epoch"], line["step"]) for line in found if line["kind"] == "epoch"] == [(1, 4), (2, 8)]
    header = checkpoint.load(folder.checkpoint("last")).header
    assert (header.epoch, header.step, header.steps, header.backend) == (2, 0, 8, "numpy")
    assert header.metrics_bytes == folder.metrics.stat().st_size
    best = max((line for line in found if line["kind"] == "epoch"), key=lambda line: line["accuracy_snn"])
    assert header.best is not None
    assert (header.best.accuracy_snn, header.best.epoch) == (best["accuracy_snn"], best["epoch"])
    assert checkpoint.load(folder.checkpoint("best")).header.epoch == best["epoch"]


def test_the_lines_say_what_the_program_says(whole: Outcome) -> None:
    config = read_config(whole.folder)
    ready = prepare(config)
    state = ready.program.load(ts.initial_state(ready.network, config.method, config.optimizer, seed=config.seed))
    images, labels = next(iter(ready.dataset.train_batches(config.seed, 0, 24)))
    _, found = ready.program.gradients(state, images, labels)
    first = lines(whole.folder)[0]
    assert first["loss"] == float(found.loss)
    assert first["accuracy_snn"] == int(found.correct_snn) / 24
    assert first["learning_rate"] == config.learning_rate
    last = checkpoint.load(whole.folder.checkpoint("last")).state
    u, v = last["stem.conv.U"], last["stem.conv.V"]
    reported = lines(whole.folder)[-1]["deviation"]["stem.conv"]
    worst = max(np.abs(a - np.eye(a.shape[-1])).max() for a in (np.swapaxes(u, -1, -2) @ u, v @ np.swapaxes(v, -1, -2)))
    assert reported == worst


class Stop(BaseException):
    """Ends a run where a kill would."""


@pytest.mark.parametrize("after", range(8))
def test_a_run_killed_after_any_step_goes_on_bit_for_bit(
    whole: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    add, taken = metrics.MetricsLog.add, 0

    def stop(self: Any, pending: Any) -> None:
        nonlocal taken
        if taken == after:
            raise Stop
        taken += 1
        add(self, pending)

    monkeypatch.setattr(metrics.MetricsLog, "add", stop)
    with pytest.raises(Stop):
        train(tmp_path, "training.checkpoint_every_steps=3")
    monkeypatch.undo()
    folder = open_run(tmp_path / "digits_cnn-001")
    assert checkpoint.load_header(folder.checkpoint("last")).steps == max(after // 3 * 3, after // 4 * 4)
    assert loop.resume(folder, None, quiet()).finished
    assert_equal_runs(whole.folder, folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_between_steps_with_a_checkpoint(
    whole: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    add = metrics.MetricsLog.add

    def interrupt(self: Any, pending: Any) -> None:
        add(self, pending)
        if pending.step == 2:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(metrics.MetricsLog, "add", interrupt)
    before = signal.getsignal(number)
    outcome = train(tmp_path)
    assert not outcome.finished
    assert outcome.steps == 2
    assert signal.getsignal(number) == before
    assert checkpoint.load(outcome.folder.checkpoint("last")).header.step == 2
    assert loop.resume(outcome.folder, None, quiet()).finished
    assert_equal_runs(whole.folder, outcome.folder)


def test_a_second_signal_interrupts_at_once() -> None:
    with loop.StopRequests() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_folder_without_checkpoint_starts_from_the_beginning(whole: Outcome, tmp_path: Path) -> None:
    folder = create(tiny(tmp_path, "training.checkpoint_every_steps=3"))
    assert loop.resume(folder, None, quiet()).finished
    assert_equal_runs(whole.folder, folder)


def test_a_finished_run_stays_as_it_is_and_more_epochs_extend_it(tmp_path: Path) -> None:
    short = train(tmp_path, "schedule.kind=constant", "training.epochs=1", "training.evaluate_every=2")
    content = short.folder.metrics.read_bytes()
    assert loop.resume(short.folder, None, quiet()).steps == 4
    assert short.folder.metrics.read_bytes() == content
    wanted = tiny(tmp_path, "schedule.kind=constant", "training.epochs=2")
    assert loop.resume(short.folder, wanted, quiet()).steps == 8
    assert [line["step"] for line in lines(short.folder) if line["kind"] == "step"] == list(range(1, 9))
    assert read_config(short.folder).training.epochs == 2


def test_what_decides_the_numbers_can_not_change_on_resume(whole: Outcome) -> None:
    stored = read_config(whole.folder)
    for change, line in {
        "seed=1": "seed: a resumed run keeps 0, got 1; start a new run to change it",
        "learning_rate=0.5": "learning_rate: a resumed run keeps 0.1, got 0.5; start a new run to change it",
        "training.batch_size=8": "training.batch_size: a resumed run keeps 24, got 8; start a new run to change it",
        "optimizer.kind=adam": "optimizer.beta1: a resumed run keeps None, got 0.9; start a new run to change it",
    }.items():
        with pytest.raises(ts.SpecError) as caught:
            reconcile(stored, tiny(Path(stored.out), "training.checkpoint_every_steps=3", change))
        assert str(caught.value) == line
    wanted = tiny(Path(stored.out), "backend=jax", "device=cuda", "training.epochs=9", "data.workers=3")
    assert reconcile(stored, wanted) == wanted


def test_other_data_are_refused_on_resume(tmp_path: Path) -> None:
    outcome = train(tmp_path, "training.epochs=1")
    path = outcome.folder.checkpoint("last")
    found = checkpoint.load(path)
    checkpoint.save(path, msgspec.structs.replace(found.header, fingerprint="other"), found.state)
    with pytest.raises(ts.SpecError, match=r"last\.safetensors: expected the data it was trained on \(other\), got "):
        loop.resume(outcome.folder, None, quiet())


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = metrics.MetricsLog.add

    def spoil(self: Any, pending: Any) -> None:
        if pending.step == 6:
            broken = msgspec.structs.replace(pending.metrics, loss=np.float64("nan"))
            pending = msgspec.structs.replace(pending, metrics=broken)
        add(self, pending)

    monkeypatch.setattr(metrics.MetricsLog, "add", spoil)
    with pytest.raises(ts.SpecError) as caught:
        train(tmp_path, "training.checkpoint_every_steps=1", "training.log_every=100")
    path = tmp_path / "digits_cnn-001" / "last.safetensors"
    assert str(caught.value) == (
        f"loss: expected a finite number, got nan at step 6; {path} keeps step 5; "
        "lower learning_rate, or raise schedule.warmup_epochs"
    )
    assert checkpoint.load(path).header.steps == 5
    assert [line["step"] for line in lines(open_run(path.parent)) if line["kind"] == "step"] == [1, 2, 3, 4, 5]


def test_names_of_runs(tmp_path: Path) -> None:
    assert [create(tiny(tmp_path)).path.name for _ in range(2)] == ["digits_cnn-001", "digits_cnn-002"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".config.json.part").write_text("{")
    assert create(tiny(tmp_path, "name=mine")).path == tmp_path / "mine"  # nothing whole is there: free
    with pytest.raises(ts.SpecError, match=r"^run: expected a name not used before, got \S+/mine; --resume"):
        create(tiny(tmp_path, "name=mine"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ts.SpecError, match=r"^out: expected a folder that can be written"):
        create(tiny(tmp_path / "file"))
    with pytest.raises(ts.SpecError, match=r"^run: expected a run's folder with config\.json, got "):
        open_run(tmp_path)


def test_metrics_survive_a_cut_line_and_refuse_a_foreign_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "step", "step": 1}\n{"kind": "st')
    assert metrics.read(path) == [{"kind": "step", "step": 1}]
    path.write_text("[]\n")
    with pytest.raises(ts.SpecError, match=r"metrics\.jsonl line 1: expected a JSON object with a kind and a step, got \[\]"):
        metrics.read(path)
    for line in ('{"kind": "step"}', '{"kind": 1, "step": 1}', '{"kind": "step", "step": true}', "\x1b[31m"):
        path.write_text(f"{line}\n")
        with pytest.raises(ts.SpecError, match=r"expected a JSON object with a kind and a step, got [ -~]+$"):
            metrics.read(path)


class Broken(ts.SpecError):
    """A sample that can't be read."""


def test_a_test_sample_that_can_not_be_read_costs_no_step(
    whole: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise Broken("test/3.png: expected an image, got 5 bytes")

    last = tmp_path / "digits_cnn-001" / "last.safetensors"
    for _ in range(2):  # the second time it is the outstanding evaluation that fails
        with monkeypatch.context() as patch:
            patch.setattr(loop, "evaluate", broken)
            with pytest.raises(ts.SpecError) as caught:
                loop.resume(open_run(last.parent), None, quiet()) if last.exists() else train(tmp_path)
        assert str(caught.value) == f"test/3.png: expected an image, got 5 bytes; {last} keeps step 4"
        assert checkpoint.load_header(last).due
    assert loop.resume(open_run(last.parent), None, quiet()).finished
    assert_equal_runs(whole.folder, open_run(last.parent))
    assert not checkpoint.load_header(last).due


@pytest.mark.parametrize("error", [Broken("train/3.png: expected an image, got 5 bytes"), MemoryError(), RuntimeError("a bug")])
def test_a_training_sample_that_can_not_be_read_costs_no_step(
    whole: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    batches = Dataset.train_batches

    def broken(self: Dataset, *words: Any, **more: Any) -> Any:
        for number, batch in enumerate(batches(self, *words, **more)):
            if number == 3:
                raise error
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "train_batches", broken)
        with pytest.raises(ts.SpecError if isinstance(error, ts.SpecError) else type(error)) as caught:
            train(tmp_path)
    folder = open_run(tmp_path / "digits_cnn-001")
    kept = f"; {folder.checkpoint('last')} keeps step 3"
    assert str(caught.value) == (f"{error}{kept}" if isinstance(error, ts.SpecError) else str(error))
    assert loop.resume(folder, None, quiet()).finished
    assert_equal_runs(whole.folder, folder)


class Full(io.StringIO):
    """Takes some lines and then no more."""

    def write(self, text: str) -> int:
        if self.tell() > 300:
            raise OSError(28, "No space left on device")
        return super().write(text)


@pytest.mark.parametrize("terminal", [False, True])
def test_output_that_can_not_be_shown_ends_neither_the_run_nor_its_record(
    whole: Outcome, tmp_path: Path, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    progress = Progress(Console(file=Full(), width=80, force_terminal=terminal))
    outcome = loop.start(tiny(tmp_path), progress)
    assert outcome.finished
    assert_equal_runs(whole.folder, outcome.folder)
    progress.note("more")
    assert capsys.readouterr().err == (
        "output is lost (No space left on device); the run goes on, and its record is metrics.jsonl\n"
    )


def test_a_record_without_room_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = create(tiny(tmp_path))
    folder.metrics.symlink_to("/dev/full")
    log = metrics.MetricsLog(folder.metrics, np.asarray)
    with pytest.raises(ts.SpecError, match=r"^metrics: expected room to write them, got No space left on device: \S+$"):
        log.line({"kind": "session", "step": 0})
    log.close()


def test_a_second_signal_says_which_step_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = loop._Loop._step

    def twice(self: Any, *words: Any) -> Any:
        if self.steps == 5:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *words)

    monkeypatch.setattr(loop._Loop, "_step", twice)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(tmp_path)
    folder = tmp_path / "digits_cnn-001"
    kept = f"{folder / 'last.safetensors'} keeps step 4"
    assert str(caught.value) == f"stopped at once; {kept}; go on with: twinspike train --resume {folder}"
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_a_signal_that_was_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with loop.StopRequests() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_pipe_where_the_lock_is_to_be_is_one_line(tmp_path: Path) -> None:
    folder = create(tiny(tmp_path))
    os.mkfifo(folder.path / LOCK)
    with pytest.raises(ts.SpecError, match=r"\.lock: expected a plain file, or none, got something else; remove it$"):
        loop.resume(folder, None, quiet())


def test_two_processes_are_not_at_work_on_one_run(tmp_path: Path) -> None:
    folder = create(tiny(tmp_path))
    program = "import sys; from pathlib import Path; from twinspike_training.lock import alone\n"
    program += "with alone(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", program, folder.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ts.SpecError) as caught:
            loop.resume(folder, None, quiet())
        assert str(caught.value) == (
            f"{folder.path}: expected a run that no other process is at work on, got process {other.pid} on "
            f"{socket.gethostname()}; wait for it, or end it"
        )
    finally:
        other.kill()  # which leaves the file, but no lock
        other.communicate()
    assert (folder.path / LOCK).exists()
    assert loop.resume(folder, None, quiet()).finished
    assert not (folder.path / LOCK).exists()


@pytest.mark.parametrize(("kind", "said"), [("cosine", True), ("constant", False)])
def test_a_jump_of_the_learning_rate_is_said(tmp_path: Path, kind: str, said: bool) -> None:
    folder = train(tmp_path, f"schedule.kind={kind}").folder
    shown = io.StringIO()
    loop.resume(folder, read_config(folder, ["training.epochs=4"]), Progress(Console(file=shown, width=1000)))
    rates = [line["learning_rate"] for line in lines(folder) if line["kind"] == "step"]
    line = (
        f"the learning rate jumps from {rates[7]:.3g} to {rates[8]:.3g}: a schedule reaches over the whole run, "
        "which has 4 epochs now and had 2\n"
    )
    assert (line in shown.getvalue()) == said
    assert ("jumps" in shown.getvalue()) == said


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("numpy", "graphs: expected false with a backend that records no steps, got true; leave it out"),
        ("torch", "program.graphs: expected one CUDA device, got cpu; leave graphs out"),
    ],
)
def test_steps_are_recorded_where_that_can_be_alone(tmp_path: Path, backend: str, words: str) -> None:
    with pytest.raises(ts.SpecError, match=f"^{words}$"):
        prepare(tiny(tmp_path, f"backend={backend}", "graphs=true"))
