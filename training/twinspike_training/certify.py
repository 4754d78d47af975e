"""Certified training: every `training.certify_every`-th real step of a run is held against the clauses as it is taken.

Before such a step the state and the backend's trace of the batch are taken to the host, after it what the step made; a judge
(`twinspike.judge`) says whether it was right. The arithmetic is the judge's matter. The run's own part is held against the
clauses here: that the state is the one at this step, that its batch is the one of the seed (RND-3, RND-4) and that the learning
rate is that of the schedule (SCH-*), each worked out anew from the number of steps alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import msgspec
import numpy as np

from twinspike import learning_rate
from twinspike.backend import Metrics, Values
from twinspike.errors import SpecError
from twinspike.judge import Step, Verdict, load_judge
from twinspike.parameters import STEP, State
from twinspike.replicas import digest, joined
from twinspike.setting import Setting, write
from twinspike_training.ranks import Group
from twinspike_training.run import Ready

EVIDENCE = "uncertified.npz"
"""File in the run's folder with what a step that failed started from."""


class UncertifiedError(SpecError):
    """A step broke a clause."""


class Watched(msgspec.Struct, frozen=True):
    """What is known of a step before it is taken."""

    number: int
    """Of the step, counted from 1 over the run."""
    before: State
    images: Values
    labels: Any
    rate: float
    trace: Mapping[str, Mapping[str, Values]]
    seconds: float
    """That taking it to the host took."""
    apart: str | None = None
    """What is not the same in every process, though it must be."""


@final
class Certifier:
    """Judges the steps of one session of a run."""

    def __init__(self, ready: Ready) -> None:
        """SpecError where steps are to be judged and there is no judge."""
        self._ready, self._config = ready, ready.config
        self.every = self._config.training.certify_every
        self._judge = load_judge() if self.every else None
        self._right = 0

    def unchanged(self, state: Any, values: Mapping[str, Values], since: str) -> None:
        """Hold a state against what it was, bit for bit (PRE-4, BN-5).

        Args:
            state: of the program.
            values: that it holds.
            since: what has happened to it that changes nothing.
        """
        if not self.every:
            return
        there = self._ready.program.dump(state)
        lost = [name for name, value in values.items() if name not in there or not _equal(there[name], value)]
        if lost or there.keys() != values.keys():
            what = ", ".join(lost or sorted(there.keys() ^ values.keys()))
            raise UncertifiedError(f"state after {since}: expected the bits of before, got others in {what}; clauses PRE-4, BN-5")

    def due(self, taken: int) -> bool:
        """Whether the next step is to be judged, after so many."""
        return self.every > 0 and (taken + 1) % self.every == 0

    def watch(self, taken: int, state: Any, images: Values, labels: Any, rate: float) -> Watched:
        """What is to be known of the next step before it is taken.

        Args:
            taken: steps before it, over the run.
            state: of the program, left as it was.
            images: its batch, as the step will take it.
            labels: likewise.
            rate: its learning rate.
        """
        began, group = time.perf_counter(), self._ready.group
        before = self._ready.program.dump(state)
        trace = self._ready.program.trace(state, images, training=True, labels=labels)
        apart = None
        if group.world_size > 1:
            images = np.concatenate([*group.ask(np.asarray(images))], axis=int(self._ready.network.event))
            labels = np.concatenate([*group.ask(np.asarray(labels))])
            trace, apart = _of_all(group, trace)
            apart = apart or _differs(group, before, "state before the step")
        return Watched(taken + 1, before, images, labels, rate, trace, time.perf_counter() - began, apart)

    def certify(self, watched: Watched, state: Any, metrics: Metrics, folder: Path) -> dict[str, Any]:
        """Judge the step that was taken: its line of metrics.

        Args:
            watched: the step before it was taken.
            state: that it made.
            metrics: that it reported.
            folder: of the run, which gets the evidence of a step that failed.

        Raises:
            UncertifiedError: the first thing that is wrong, in the order of the data, with its clauses.
        """
        after, group = self._ready.program.dump(state), self._ready.group
        apart = watched.apart or (_differs(group, after, "state after the step") if group.world_size > 1 else None)

        def judged() -> str:
            try:
                return msgspec.json.encode(self._judged(watched, after, metrics, apart, folder)).decode()
            except UncertifiedError as error:
                return f"!{error}"

        said = group.told(judged)  # by the process of rank 0 alone
        if said.startswith("!"):
            raise UncertifiedError(said[1:])
        found: dict[str, Any] = msgspec.json.decode(said)
        return found

    def _judged(self, watched: Watched, after: State, metrics: Metrics, apart: str | None, folder: Path) -> dict[str, Any]:
        """The line of metrics of a right step; UncertifiedError of another, whose evidence is kept."""
        began, fields = time.perf_counter(), type(metrics).__struct_fields__
        reported = {name: float(self._ready.session.to_numpy(getattr(metrics, name))) for name in fields}
        failure = apart or self._of_run(watched)
        verdict = self._verdict(watched, reported, after) if failure is None else None
        failure = failure or (verdict.failure if verdict is not None else None)
        if failure is not None or verdict is None:
            self._keep(watched, folder)
            since = f"step {self._right} was right" if self._right else "none before it was judged in this session"
            raise UncertifiedError(
                f"step {watched.number} is not certified: {failure}; {since}; {folder / EVIDENCE} holds its state and batch"
            )
        self._right = watched.number
        line = {"kind": "certificate", "step": watched.number, "worst": verdict.worst, "at": verdict.at}
        line |= {"comparisons": verdict.comparisons, "open": verdict.open}
        return line | {"seconds": round(watched.seconds + time.perf_counter() - began, 3)}

    def _verdict(self, watched: Watched, reported: dict[str, float], after: State) -> Verdict:
        assert self._judge is not None
        config = self._config
        step = Step(
            network=self._ready.network, method=config.method, optimizer=config.optimizer, precision=config.precision,
            before=watched.before, images=watched.images, labels=np.asarray(watched.labels), learning_rate=watched.rate,
            trace=watched.trace, metrics=reported, after=after, replicas=self._ready.group.replicas,
        )  # fmt: skip
        return self._judge(step, sample=config.training.certify_sample, seed=watched.number)

    def _of_run(self, watched: Watched) -> str | None:
        """What is wrong with the run's own part of a step; None where nothing is."""
        config, training, ready = self._config, self._config.training, self._ready
        taken, length = watched.number - 1, ready.steps_per_epoch
        if (got := int(watched.before[STEP])) != taken:
            return f"counter of steps: expected {taken}, got {got}; clause OPT-3"
        epoch, place = divmod(taken, length)
        want = learning_rate(config.schedule, config.learning_rate, epoch, place, training.epochs, length)
        if watched.rate != want:
            return f"learning rate: expected {want!r}, got {watched.rate!r}; clauses SCH-1, SCH-2"
        images, labels = ready.dataset.batch(config.seed, epoch, place, training.batch_size)
        if not np.array_equal(watched.labels, labels):
            return f"labels: expected those of batch {place + 1} of epoch {epoch + 1}, got others; clause RND-3"
        if not np.array_equal(watched.images, images):
            return f"images: expected those of batch {place + 1} of epoch {epoch + 1}, got others; clauses RND-3, RND-4"
        return None

    def _keep(self, watched: Watched, folder: Path) -> None:
        config, state = self._config, {name: np.asarray(value) for name, value in watched.before.items()}
        batch = (watched.images,), (np.asarray(watched.labels),)
        write(folder / EVIDENCE, Setting(self._ready.network, config.method, config.optimizer, state, *batch))


def _of_all(group: Group, trace: Mapping[str, Mapping[str, Values]]) -> tuple[dict[str, dict[str, Values]], str | None]:
    """All processes' traces as that of the global batch, in the process that judges; and what differs that must not."""
    found: dict[str, dict[str, Values]] = {}
    differing = None
    for layer, tap in trace.items():
        found[layer] = {}
        for key, value in tap.items():
            parts = group.ask(value)
            if not key.startswith("d_"):
                found[layer][key] = joined(key, parts) if group.first else value
                continue
            found[layer][key] = value
            if any(part.tobytes() != parts[0].tobytes() for part in parts):
                differing = (
                    differing or f"gradient of {layer}.{key[2:]}: expected the same on every rank, got others; clause DEV-2"
                )
    return found, differing


def _differs(group: Group, state: State, what: str) -> str | None:
    """Whether a state is not the same in every process (DEV-5)."""
    rows = group.ask(np.frombuffer(digest(state), np.uint8))
    if all(row.tobytes() == rows[0].tobytes() for row in rows):
        return None
    return f"{what}: expected the same on every rank, got others; clause DEV-5"


def _equal(a: Values, b: Values) -> bool:
    return a.shape == b.shape and bool(np.array_equal(a, np.asarray(b, a.dtype)))
