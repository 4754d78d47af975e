"""The training loop: epochs of steps, evaluations, checkpoints, and a stop at any moment that loses nothing.

A resumed run repeats the uninterrupted one bit for bit on the same backend and device: state, position,
order of samples and augmentation all follow from the checkpoint. Nothing waits for the device but every
`training.log_every` steps.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Generator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import msgspec

from twinspike import initial_state, learning_rate
from twinspike.backend import Metrics
from twinspike.errors import SpecError, refuse
from twinspike_training import checkpoint
from twinspike_training.alive import watched
from twinspike_training.board import Board
from twinspike_training.certify import Certifier, UncertifiedError, Watched
from twinspike_training.checkpoint import Best, Checkpoint, Header
from twinspike_training.config import RunConfig
from twinspike_training.evaluation import deviations, evaluate
from twinspike_training.hardware import hardware
from twinspike_training.lock import alone
from twinspike_training.metrics import MetricsLog, NotFiniteError, Pending
from twinspike_training.progress import Progress
from twinspike_training.ranks import rendezvous
from twinspike_training.record import require_plain, rewind, tells_of_steps
from twinspike_training.run import (
    Ready,
    RunFolder,
    create,
    prepare,
    rate_jump,
    read_config,
    reconcile,
    same_data,
    same_epochs,
    stored_config,
)
from twinspike_training.stops import StopRequests


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended."""

    folder: RunFolder
    finished: bool
    """False: it was stopped by a signal and can be resumed."""
    steps: int
    """Optimizer steps taken in all."""
    best: Best | None
    last: dict[str, Any] | None
    """The last evaluation's line of metrics; None if there was none in this session."""


VALIDATION = ("accuracy_snn", "accuracy_ann", "cross_entropy_snn", "cross_entropy_ann", "samples")
"""What an `epoch` line says of the samples held out."""


def start(config: RunConfig, progress: Progress, until: float = math.inf) -> Outcome:
    """Train a new run from the beginning.

    Args:
        config: of the run.
        progress: told about what happens.
        until: time of `time.monotonic` at which to stop as by a signal, after a step at the least.

    Raises:
        SpecError: something is not to be had, or the loss is not finite.
    """
    ready = prepare(config, together=True)  # before the folder is made: a refused run leaves nothing behind
    folder = RunFolder(Path(ready.group.told(lambda: str(create(config).path))))
    with alone(folder.path) if ready.group.first else nullcontext():
        return _Loop(folder, ready, None, progress, until).run()


def resume(
    folder: RunFolder, wanted: RunConfig | None, progress: Progress, which: str = "last", until: float = math.inf
) -> Outcome:
    """Go on with a run from a checkpoint.

    A run that was killed before its first one starts from the beginning. What the record tells of later steps is taken
    back (`record.rewind`).

    Args:
        folder: of the run.
        wanted: its config with changes that `run.MAY_CHANGE` allows; None changes nothing.
        progress: told about what happens.
        which: `last`, or `best`, which then takes the place of the last.
        until: as for `start`.

    Raises:
        SpecError: no run, one that another process is at work on, a broken or a lost checkpoint, a forbidden change, other
            data, or a loss that is not finite.
    """
    at = rendezvous(os.environ)
    with alone(folder.path) if at is None or at.rank == 0 else nullcontext():
        return _resume(folder, wanted, progress, which, until)


def _resume(folder: RunFolder, wanted: RunConfig | None, progress: Progress, which: str, until: float) -> Outcome:
    stored = stored_config(folder)
    config = read_config(folder) if wanted is None else reconcile(stored, wanted)
    require_plain(folder.metrics)  # before anything is altered
    found = _checkpoint(folder, which)
    if found is not None:
        reconcile(found.header.config, config)
    ready = prepare(config, found.header.network if found else None, together=True)
    header, path = found.header if found else None, folder.checkpoint(which)
    if header is not None:
        same_data(header, ready.dataset, str(path))
        same_epochs(header, ready.steps_per_epoch, str(path))
    if not ready.group.first:
        return _Loop(folder, ready, found, progress, until).run()
    if config != stored:
        folder.write_config(config)
    if header is None:
        progress.note(f"{folder.path} has no checkpoint and took no steps: starts from the beginning")
        said = rewind(folder.metrics, 0, 0)
    elif which == "last":
        said = rewind(folder.metrics, header.metrics_bytes, header.steps)
    else:
        # Before the record is cut, so that whatever is killed after this is resumed from here.
        said = rewind(folder.metrics, header.metrics_bytes, header.steps, lambda: folder.replace_last(path))
        progress.note(f"goes on from {path}, after epoch {header.epoch}; it took the place of {folder.checkpoint('last')}")
    for line in said:
        progress.note(line)
    if header is not None and (jump := rate_jump(header, config, ready.steps_per_epoch)):
        progress.note(jump)
    return _Loop(folder, ready, found, progress, until).run()


def _checkpoint(folder: RunFolder, which: str) -> Checkpoint | None:
    """The checkpoint to go on from; None of a run that was killed before it had one, and so lost nothing."""
    path, best = folder.checkpoint(which), folder.checkpoint("best")
    began = os.path.lexists(path) or os.path.lexists(best) or tells_of_steps(folder.metrics)
    if which == "last" and not began:
        return None
    try:
        return checkpoint.load(path)
    except SpecError as error:
        if which != "last":
            raise
        try:
            way = f"--from best goes on from epoch {checkpoint.load(best).header.epoch} and takes back what came after it"
        except SpecError:
            way = "no best.safetensors can be read either; start a new run"
        raise SpecError(f"{error}; {way}") from None


class _Loop:
    """One session of one run."""

    def __init__(self, folder: RunFolder, ready: Ready, found: Checkpoint | None, progress: Progress, until: float) -> None:
        config = ready.config
        self.until = until
        self.folder, self.ready, self.config, self.progress = folder, ready, config, progress
        self.group = ready.group
        self.epoch = self.step = self.steps = 0
        self.compiled = not ready.session.compiled
        self.best: Best | None = None
        self.last: dict[str, Any] | None = None
        if found is None:
            values = initial_state(ready.network, config.method, config.optimizer, seed=config.seed)
        else:
            header = found.header
            values = found.state
            self.epoch, self.step, self.steps, self.best = header.epoch, header.step, header.steps, header.best
            if self.best is not None and self.group.first:
                self._keep_best(folder.checkpoint("best"))
        self.certifier = Certifier(ready)
        self.state = ready.program.load(values)
        self.certifier.unchanged(self.state, values, "loading")
        board = Board(folder.path, self.steps, progress.note) if config.training.tensorboard and self.group.first else None
        self.log = MetricsLog(folder.metrics if self.group.first else None, ready.session.to_numpy, board)
        self.due = found is not None and found.header.due
        self.writing = threading.RLock()
        self.saved_at = time.monotonic()

    def _keep_best(self, path: Path) -> None:
        """Say so where the best checkpoint is lost; the next evaluation is the best then."""
        try:
            checkpoint.load(path)
        except SpecError as error:
            self.progress.note(f"the best checkpoint is lost ({error}): the next evaluation is the best anew")
            self.best = None

    def run(self) -> Outcome:
        """Train until the last epoch, the last step or a stop request."""
        finished = True
        try:
            with watched(self.group, self._kept), StopRequests(self.until) as stop, closing(self.log):
                if self.due or self._goes_on():
                    self._open_session()
                    self.progress.begin(self.ready, self.folder, self.steps)
                if self.steps == 0:
                    self._save(self._dump())
                if self.due:
                    finished = self._evaluate(0.0, stop)
                while self._goes_on() and finished:
                    finished = self._epoch(stop)
                self.progress.end()
        except KeyboardInterrupt:  # the second signal
            way = f"go on with: twinspike train --resume {self.folder.path}"
            raise KeyboardInterrupt(f"stopped at once; {self._kept()}; {way}") from None
        return Outcome(folder=self.folder, finished=finished, steps=self.steps, best=self.best, last=self.last)

    def _goes_on(self) -> bool:
        """Whether epochs are left, and steps before `training.max_steps`."""
        return not self.config.training.ended(self.epoch, self.steps)

    def _open_session(self) -> None:
        config = self.config
        line = {"kind": "session", "step": self.steps, "backend": config.backend, "device": config.device}
        line |= {
            "precision": config.precision,
            "compile": self.ready.session.compiled,
            "devices": self.group.replicas,
            "versions": self.ready.capabilities.versions,
            "hardware": hardware(),
        }
        self.log.line(line)

    def _epoch(self, stop: StopRequests) -> bool:
        """The rest of one epoch and its evaluation; False if stopped."""
        config, training = self.config, self.config.training
        length = self.ready.steps_per_epoch
        began = time.perf_counter()
        self.log.restart_clock()
        with closing(self._batches()) as batches:
            for images, labels in batches:
                rate = learning_rate(config.schedule, config.learning_rate, self.epoch, self.step, training.epochs, length)
                watched = self._watch(images, labels, rate)
                self.state, metrics = self._step(images, labels, rate)
                self.step += 1
                self.steps += 1
                self.log.add(
                    Pending(
                        step=self.steps,
                        epoch=self.epoch,
                        learning_rate=rate,
                        samples=len(labels) * self.group.world_size,
                        metrics=metrics,
                    )
                )
                if watched is not None or self.step % training.log_every == 0 or self.step == length:
                    self._flush()
                if watched is not None:
                    self._certify(watched, metrics)
                if not self._goes_on():
                    break
                # once, since time may be over between two looks, and by all processes alike
                stopped, due = self.group.any(stop.requested, self.group.first and self._due())
                if due or stopped:
                    self._save(self._dump())
                if stopped:
                    return False
        seconds = time.perf_counter() - began
        return self._finish_epoch(seconds, stop)

    def _batches(self) -> Generator[tuple[Any, Any]]:
        """The batches of the rest of this epoch; where one can't be had, what was learned until then is kept."""
        batch_size = self.config.training.batch_size
        batches = self.ready.dataset.train_batches(
            self.config.seed,
            self.epoch,
            batch_size,
            start=self.step,
            drop_last=self.config.training.drop_last,
            process=self.group.rank,
            processes=self.group.world_size,
        )
        with closing(batches):  # type: ignore[type-var]  # an iterator to be read to its end or closed
            try:
                yield from batches
            except Exception as error:
                self._save(self._dump())
                if isinstance(error, SpecError):
                    raise SpecError(f"{error}; {self._kept()}") from None
                raise

    def _step(self, images: Any, labels: Any, rate: float) -> tuple[Any, Metrics]:
        """One optimizer step; the first of a session says how long compiling it took."""
        if self.compiled:
            return self.ready.program.train_step(self.state, images, labels, rate)
        self.progress.compiling()
        began = time.perf_counter()
        state, metrics = self.ready.program.train_step(self.state, images, labels, rate)
        self.ready.session.to_numpy(metrics.loss)  # the step's own time belongs to it: the device is waited for
        self.progress.compiled(time.perf_counter() - began)
        self.compiled = True
        return state, metrics

    def _watch(self, images: Any, labels: Any, rate: float) -> Watched | None:
        """What is to be known of a step that is to be judged, before it is taken."""
        if not self.certifier.due(self.steps):
            return None
        self._flush()
        watched = self.certifier.watch(self.steps, self.state, images, labels, rate)
        self.log.restart_clock()
        return watched

    def _certify(self, watched: Watched, metrics: Metrics) -> None:
        """Judge the step that was taken; one that is wrong ends the run with what was kept before it."""
        try:
            self.log.line(self.certifier.certify(watched, self.state, metrics, self.folder.path))
        except UncertifiedError as error:
            raise UncertifiedError(f"{error}; {self._kept()}") from None
        self.log.restart_clock()

    def _finish_epoch(self, seconds: float, stop: StopRequests) -> bool:
        training = self.config.training
        if self.step == self.ready.steps_per_epoch:  # else max_steps ends the run within the epoch
            self.epoch, self.step = self.epoch + 1, 0
        if self._goes_on() and self.epoch % training.evaluate_every:
            return True
        return self._evaluate(seconds, stop)

    def _evaluate(self, seconds: float, stop: StopRequests) -> bool:
        """Save, then look: a test sample that can't be read, say, costs no step; False if stopped."""
        values = self._dump()
        if not self.due:
            self.due = True
            self._save(values)
        try:
            judged = result = evaluate(self.ready, self.state)
            line = {"kind": "epoch", "step": self.steps, "epoch": self.epoch, **result.as_line()}
            if self.ready.dataset.validation_size:
                judged = evaluate(self.ready, self.state, "validation")
                line["validation"] = {key: getattr(judged, key) for key in VALIDATION}
        except SpecError as error:
            raise SpecError(f"{error}; {self._kept()}") from None
        self.due = False
        self.certifier.unchanged(self.state, values, "an evaluation")
        line |= {"deviation": deviations(values), "seconds": round(seconds, 3)}
        self.log.line(line)
        self.last = line
        self.progress.epoch(line)
        if self.best is None or judged.accuracy_snn > self.best.accuracy_snn:
            self.best = Best(accuracy_snn=judged.accuracy_snn, accuracy_ann=judged.accuracy_ann, epoch=self.epoch)
            # Before `last`: if killed between the two, the resumed epoch writes the same best again.
            self._save(values, "best")
        self._save(values)
        return not (self.group.any(stop.requested)[0] and self._goes_on())

    def _flush(self) -> None:
        try:
            lines = self.log.flush()
        except NotFiniteError as error:
            raise SpecError(f"{error}; {self._kept()}; lower learning_rate, or raise schedule.warmup_epochs") from None
        self.progress.steps(lines)

    def _kept(self) -> str:
        path = self.folder.checkpoint("last")
        with self.writing:  # another thread that ends the process lets a checkpoint be whole first
            try:
                return f"{path} keeps step {checkpoint.load_header(path).steps}"
            except SpecError:
                return f"{path} keeps none that can be read"

    def _due(self) -> bool:
        training = self.config.training
        by_steps = training.checkpoint_every_steps > 0 and self.steps % training.checkpoint_every_steps == 0
        seconds = training.checkpoint_every_seconds
        return by_steps or (seconds > 0 and time.monotonic() - self.saved_at >= seconds)

    def _dump(self) -> Any:
        self._flush()  # a loss that is not finite stops here, before anything good is overwritten
        return self.ready.program.dump(self.state)

    def _save(self, values: Any, which: str = "last") -> None:
        if not self.group.first:
            return
        header = Header(
            backend=self.config.backend,
            epoch=self.epoch,
            step=self.step,
            steps=self.steps,
            best=self.best,
            due=self.due,
            fingerprint=self.ready.dataset.fingerprint,
            metrics_bytes=self.log.sync(),
            config=self.config,
            network=self.ready.network,
        )
        try:
            with self.writing:
                checkpoint.save(self.folder.checkpoint(which), header, values)
        except SpecError as error:  # the state is one that nothing can go on from
            raise SpecError(f"{error}; {self._kept()}; lower learning_rate in a new run") from None
        except OSError as error:
            refusal = refuse("checkpoint", expected="room and permission to write it", got=str(error))
            raise SpecError(f"{refusal}; {self._kept()}") from None
        self.saved_at = time.monotonic()
        self.log.restart_clock()
