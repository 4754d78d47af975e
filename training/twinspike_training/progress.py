"""What a person sees of a run: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

from twinspike import __version__ as spec_version
from twinspike.boundary import silence
from twinspike.errors import require
from twinspike_training.run import Ready, RunFolder
from twinspike_training.terminal import say

PLAIN_EVERY = 10.0
"""Seconds between two lines of steps where output is no terminal."""


LOOKS = 20
"""Looks at the steps from which the time left is told."""


class Progress:
    """Follows one run."""

    def __init__(self, console: Console) -> None:
        """Take the console to write to; a terminal gets a live line."""
        self._console = console
        self._bars: Bars | None = None
        self._task: Any = None
        self._total = self._done = self._epochs = 0
        self._said = 0.0
        self._lost = False
        self._looks: deque[tuple[float, int]] = deque(maxlen=LOOKS)

    def begin(self, ready: Ready, folder: RunFolder, done: int) -> None:
        """A session begins after `done` optimizer steps."""
        config = ready.config
        require(self._bars is None, "progress", expected="one run at a time", got="a second")
        self._epochs = config.training.epochs
        steps = self._epochs * ready.steps_per_epoch
        self._total, self._done = min(config.training.max_steps or steps, steps), done
        self._said = time.monotonic()
        self._looks.append((self._said, done))
        mode = "compiled" if ready.session.compiled else "eager"
        name = config.network.rpartition("/")[2]
        self._say(
            f"run {folder.path}: {name} on {config.data.name}, T = {config.method.time_steps}, specification {spec_version}"
        )
        self._say(
            f"backend {config.backend} on {config.device}, {config.precision}, {mode}; {ready.dataset.train_size:,} training, "
            f"{ready.dataset.validation_size:,} validation and {ready.dataset.test_size:,} test samples, "
            f"{self._epochs} epochs of {ready.steps_per_epoch} steps"
            + (f", of which {self._total:,} steps are taken" if self._total < steps else "")
        )
        for note in ready.dataset.notes:
            self._say(note)
        if done:
            self._say(f"resumed after step {done:,} of {self._total:,}")
        if self._console.is_terminal:
            columns = (TextColumn("{task.fields[head]}"), BarColumn(bar_width=8), TextColumn("{task.fields[text]}"))
            # Drawn when there is news, and not by a thread, whose errors nobody would catch.
            self._bars = Bars(*columns, console=self._console, transient=True, auto_refresh=False, redirect_stderr=False)
            self._task = self._bars.add_task("", total=self._total, completed=done, head="", text="")
            self._show(self._bars.start)

    def note(self, text: str) -> None:
        """Something that the user should know."""
        self._say(text)

    def compiling(self) -> None:
        """The first step of a compiled session begins."""
        self._say("compiling the training step; a large network takes minutes, less where a cache has it")

    def compiled(self, seconds: float) -> None:
        """The first step is done, after `seconds`."""
        self._say(f"compiled, and took the first step, in {_duration(seconds)}")

    def steps(self, lines: list[dict[str, Any]]) -> None:
        """Steps were taken; `lines` are theirs, in order."""
        if not lines:
            return
        line = lines[-1]
        self._done = line["step"]
        head = f"epoch {line['epoch'] + 1}/{self._epochs}"
        parts = _step_text(lines)
        left = f"{_duration(self._left())} left"
        if self._bars is not None:
            text = "\n".join((*parts[:2], f"{parts[2]}  {left}"))  # three lines, which fit a terminal of 80 columns
            self._bars.update(self._task, completed=self._done, head=head, text=text)
            self._show(self._bars.refresh)
        elif time.monotonic() - self._said >= PLAIN_EVERY:
            self._said = time.monotonic()
            self._say(f"{head} step {self._done:,}/{self._total:,}  {'  '.join(parts)}  {left}")

    def epoch(self, line: dict[str, Any]) -> None:
        """An evaluation was made."""
        worst = max(line["deviation"].values(), default=0.0)
        deviation = f"  max|U'U-I| {worst:.2g}" if line["deviation"] else ""
        held = f"  validation accuracy snn {line['validation']['accuracy_snn']:.2%}" if "validation" in line else ""
        self._say(
            f"epoch {line['epoch']:>{len(str(self._epochs))}}/{self._epochs}{held}  test accuracy snn {line['accuracy_snn']:.2%} "
            f"ann {line['accuracy_ann']:.2%}  cross entropy snn {line['cross_entropy_snn']:.3f} "
            f"ann {line['cross_entropy_ann']:.3f}  spike rate {line['spike_rate']:.3f}{deviation}  {_duration(line['seconds'])}"
        )

    def end(self) -> None:
        """The session ends."""
        if self._bars is not None:
            self._show(self._bars.stop)
            self._bars = None

    def _left(self) -> float:
        """Seconds left at the pace of the last looks, so that a first step's compilation is soon forgotten."""
        then, step = self._looks[0]
        now = time.monotonic()
        self._looks.append((now, self._done))
        return (now - then) / max(self._done - step, 1) * (self._total - self._done)

    def _say(self, text: str) -> None:
        self._show(lambda: say(self._console, text))

    def _show(self, call: Callable[[], object]) -> None:
        """Show something, or lose it: a full disk, a closed pipe or terminal ends no run."""
        if self._lost:
            return
        try:
            call()
        except (OSError, ValueError) as error:  # ValueError: a file that was closed
            self._lost = True
            silence()
            with suppress(OSError):
                reason = getattr(error, "strerror", None) or str(error)
                print(f"output is lost ({reason}); the run goes on, and its record is metrics.jsonl", file=sys.stderr, flush=True)


def _step_text(lines: list[dict[str, Any]]) -> tuple[str, str, str]:
    """Means over the steps since the last look, in three parts; losses before their weights."""

    def mean(name: str) -> float:
        return float(sum(line[name] for line in lines) / len(lines))

    return (
        f"loss {mean('loss'):.3f}  cross entropy ann {mean('cross_entropy_ann'):.3f} snn {mean('cross_entropy_snn'):.3f}",
        f"distillation {mean('distillation'):.2f}  feature {mean('feature'):.3g}  "
        f"accuracy ann {mean('accuracy_ann'):.1%} snn {mean('accuracy_snn'):.1%}",
        f"spike rate {mean('spike_rate'):.3f}  {lines[-1]['images_per_second']:,.0f} images/s",
    )


def _duration(seconds: float) -> str:
    """`4.2 s`, `3:05`, `2:03:05`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
