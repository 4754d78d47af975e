"""Faults of statistics and modes, batches, reports, sessions and evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from training_faults import HERE, TRAINCHECK, TTRACE, Course, Fault, State, afterwards

from twinspike.parameters import layer_and_part
from twinspike.random import Stream
from twinspike_training.data import Dataset, dataset, selection
from twinspike_training.data.batch import Maker, Task
from twinspike_training.run import Ready


def _reporting(change: Callable[[Course, Any, State, Any, Any], Any]) -> Callable[..., Any]:
    """A right step that reports something else."""

    def step(course: Course, state: State, images: Any, labels: Any, rate: float) -> Any:
        after, metrics = course.right.train_step(state, images, labels, rate)
        told = change(course, metrics, state, images, labels)
        course.memory["metrics"] = metrics
        return after, told

    return step


def _statistics(course: Course, before: State, after: State) -> State:
    held = {k for k in after if layer_and_part(k)[1].startswith(("mean", "var")) and "/" not in k}
    return {k: before[k] if k in held else v for k, v in after.items()}


def _statistics_twice(course: Course, state: State, images: Any, labels: Any, rate: float) -> Any:
    once, metrics = course.right.train_step(state, images, labels, rate)
    moved = {k: v for k, v in once.items() if layer_and_part(k)[1].startswith(("mean", "var")) and "/" not in k}
    again, _ = course.right.train_step({**state, **moved}, images, labels, rate)
    return again, metrics


def _in_place(course: Course, state: State, images: Any, labels: Any, rate: float) -> Any:
    return course.right.train_step(state, course.memory["images"], labels, rate)


def _labels_of_before(course: Course, state: State, images: Any, labels: Any, rate: float) -> Any:
    return course.right.train_step(state, images, course.memory["labels"], rate)


def _field(name: str, value: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda course, metrics, *_: msgspec.structs.replace(metrics, **{name: value(getattr(metrics, name))})


def _unlike(seed: int = 0, epoch: int = 0, place: int = 0) -> Callable[..., Iterator[Any]]:
    """Batches of another seed, epoch or place than those asked for, by so much."""

    def batches(dataset: Any, own: int, at: int, size: int, start: int) -> Iterator[Any]:
        while True:
            yield dataset.batch(own + seed, at + epoch, (start + place) % (dataset.train_size // size), size)
            start += 1

    return batches


def _first_epoch(dataset: Any, seed: int, epoch: int, size: int, start: int) -> Iterator[Any]:
    while True:
        yield dataset.batch(seed, 0, start, size)
        start += 1


def _augmented_alike(dataset: Any, seed: int, epoch: int, size: int, start: int) -> Iterator[Any]:
    order = dataset._used.train[Stream(seed, "order", epoch).permutation(dataset.train_size)]
    while True:
        yield dataset._maker(Task(order[start * size : (start + 1) * size], "train", True, seed, 0))
        start += 1


def _first_batch(dataset: Any, seed: int, epoch: int, size: int, start: int) -> Iterator[Any]:
    while True:
        yield dataset.batch(seed, epoch, 0, size)


def _changed(images: Callable[[Any, Any], Any], labels: Callable[[Any], Any]) -> Callable[..., Iterator[Any]]:
    """The right batches, changed."""

    def batches(dataset: Any, seed: int, epoch: int, size: int, start: int) -> Iterator[Any]:
        while True:
            x, y = dataset.batch(seed, epoch, start, size)
            yield images(x, dataset.batch(seed, 0, start, size)[0]), labels(y)
            start += 1

    return batches


def _by_batch(ready: Ready, state: State, images: Any) -> Any:
    """An evaluation in training mode: each norm by the batch's own statistics."""
    trace = ready.program.trace(state, images, training=True)
    right = ready.program.evaluate(state, images)
    heads = [exit_.head for exit_ in ready.network.exits]
    logits = {
        "logits_ann": np.stack([trace[h]["ann"] for h in heads]),
        "logits_snn": np.stack([trace[h]["snn"].sum(0) for h in heads]),
    }
    return msgspec.structs.replace(right, **logits)


def _moving(ready: Ready, state: State, images: Any) -> Any:
    """An evaluation that moves running means, in the state that it was given."""
    right = ready.program.evaluate(state, images)
    state["stem.norm.mean_snn"] = state["stem.norm.mean_snn"] * 0.9
    return right


def _other_constants(patch: pytest.MonkeyPatch) -> None:
    right = Maker._normalize
    patch.setattr(Maker, "_normalize", lambda self, raw: 1.1 * right(self, raw))


def _test_among_training(patch: pytest.MonkeyPatch) -> None:
    right = selection.select

    def select(source: Any, config: Any) -> Any:
        found = right(source, config)
        return found._replace(validation=found.train[: len(found.validation)])

    patch.setattr(dataset, "select", select)


def _last_batch_twice(patch: pytest.MonkeyPatch) -> None:
    right = Dataset.test_batches

    def batches(self: Any, *given: Any, **named: Any) -> Iterator[Any]:
        for batch in right(self, *given, **named):
            yield batch
        yield batch

    patch.setattr(Dataset, "test_batches", batches)


FAULTS: tuple[Fault, ...] = (
    # statistics and mode
    Fault(
        "statistics-stay",
        "running statistics stay: training goes on in evaluation mode",
        HERE + "mode after an evaluation",
        "BN-4",
        step=afterwards(_statistics),
    ),
    Fault(
        "statistics-twice",
        "recomputation moves running statistics twice",
        TTRACE + "activation recomputation",
        "BN-4",
        step=_statistics_twice,
    ),
    Fault(
        "statistics-of-one",
        "running statistics are the other twin's",
        HERE + "two sets of statistics",
        "BN-4",
        mutant="bn-statistics-shared",
    ),
    Fault(
        "constant-statistics",
        "no gradient goes through the batch's statistics",
        HERE + "a norm in the wrong mode",
        "BN-1",
        mutant="bn-statistics-constant",
    ),
    Fault(
        "state-kept",
        "neurons start a batch with the potentials of the one before",
        HERE + "neurons not reset",
        "LIF-",
        mutant="lif-state-kept",
    ),
    Fault(
        "teacher-attached", "the teacher feels its students", HERE + "a detach left out", "DIS-6", mutant="dis-teacher-attached"
    ),
    Fault(
        "half-shared", "shared factors get half of their gradient", HERE + "two optimizers", "FAC-7", mutant="fac-half-gradient"
    ),
    Fault(
        "moves-twice", "shared tensors move once for each twin", HERE + "two optimizers", "OPT-1", mutant="opt-shared-moves-twice"
    ),
    # batches
    Fault(
        "buffer-reused",
        "the batch's memory gets another batch before the step reads it",
        HERE + "pinned buffers",
        "",
        step=_in_place,
    ),
    Fault(
        "labels-of-before",
        "the step sees the labels of the batch before",
        HERE + "queues out of step",
        "",
        step=_labels_of_before,
    ),
    Fault(
        "order-repeated",
        "every epoch has the order of the first",
        TRAINCHECK + "a sampler without its epoch",
        "RND-3",
        data=_first_epoch,
        changes=("data.limit=18",),
    ),
    Fault(
        "augmented-alike",
        "every epoch augments as the first",
        TRAINCHECK + "workers with the same seed",
        "RND-4",
        data=_augmented_alike,
        changes=("data.limit=18", 'data.augment=["crop"]'),
    ),
    Fault(
        "labels-shifted",
        "labels are shifted by a sample",
        HERE + "two files out of step",
        "RND-3",
        data=_changed(lambda x, y: x, lambda y: np.roll(y, 1)),
    ),
    Fault("first-batch", "the first batch comes again and again", HERE + "an iterator made anew", "RND-3", data=_first_batch),
    Fault("skipped", "a batch is skipped", HERE + "a position lost on resuming", "RND-3", data=_unlike(place=1)),
    Fault("other-seed", "a rank draws with a seed of its own", TRAINCHECK + "seeds of ranks", "RND-3", data=_unlike(seed=1)),
    Fault(
        "first-of-batch",
        "the first image stands for the batch",
        TRAINCHECK + "a processor that returns the first item",
        "RND-4",
        data=_changed(lambda x, y: np.repeat(x[:1], len(x), axis=0), lambda y: y),
    ),
    # reports
    Fault(
        "report-late",
        "metrics are those of the batch before",
        HERE + "metrics kept on the device",
        "of the step",
        step=_reporting(lambda c, m, *_: c.memory["metrics"]),
    ),
    Fault(
        "report-of-half",
        "metrics are one rank's",
        TTRACE + "a loss that is not reduced",
        "of the step",
        step=_reporting(lambda c, m, s, x, y: c.right.gradients(s, x[: len(y) // 2], y[: len(y) // 2])[1]),
    ),
    Fault(
        "hits-doubled",
        "hits are counted once per rank",
        HERE + "metrics summed twice",
        "OUT-3",
        step=_reporting(_field("correct_snn", lambda v: v + 1)),
    ),
    Fault(
        "rate-of-spikes",
        "the rate of spikes is doubled",
        HERE + "two passes counted",
        "spikes",
        step=_reporting(_field("spike_rate", lambda v: 2 * v)),
    ),
    # sessions and evaluations
    Fault(
        "momentum-lost",
        "a resumed run has lost its momentum",
        HERE + "a checkpoint of the weights alone",
        "PRE-4",
        load=lambda s: {k: 0 * v if "momentum" in k else v for k, v in s.items()},
    ),
    Fault(
        "loaded-crosswise",
        "a resumed run has the twins' heads exchanged",
        TRAINCHECK + "modules under wrong names",
        "PRE-4",
        load=lambda s: {**s, "head.weight_ann": s["head.weight_snn"], "head.weight_snn": s["head.weight_ann"]},
    ),
    Fault("evaluation-moves", "an evaluation moves running statistics", HERE + "a mode not set", "PRE-4", evaluate=_moving),
    Fault(
        "evaluation-by-batch",
        "an evaluation normalizes by the batch",
        TRAINCHECK + "dropout in evaluation",
        "(`network[evaluation]` of the suite)",
        evaluate=_by_batch,
    ),
    Fault(
        "other-constants",
        "samples are scaled by a tenth too much",
        HERE + "another data set's constants",
        "(tests of the data: `test_data_cifar`)",
        patch=_other_constants,
    ),
    Fault(
        "held-out-in-training",
        "what is held out is trained on",
        HERE + "a split that overlaps",
        "(tests of the data: `test_data_selection`)",
        patch=_test_among_training,
        changes=("data.validation=6",),
    ),
    Fault(
        "last-batch-twice",
        "an evaluation counts its last samples twice",
        TRAINCHECK + "padded samplers",
        "each of 10 counted once",
        patch=_last_batch_twice,
    ),
)
