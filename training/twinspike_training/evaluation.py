"""Both twins on the test or the held-out samples: accuracy of every exit, loss of the main exit, spike rates, orthogonality."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Evaluation, Values
from twinspike.config import TWINS, Twin, encode
from twinspike.energy import Static, Workload, static, workload
from twinspike.errors import require
from twinspike.network import infer_shapes
from twinspike.parameters import State, layer_and_part
from twinspike.reference.factorization import deviation
from twinspike.replicas import portion
from twinspike_training.ranks import Group
from twinspike_training.run import Ready


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation of all samples of a part."""

    accuracy_ann: float
    """Share of samples that the main exit classifies correctly, in [0, 1]."""
    accuracy_snn: float
    accuracy_exits_ann: tuple[float, ...]
    """By exit, in order of depth; the last is the main exit."""
    accuracy_exits_snn: tuple[float, ...]
    cross_entropy_ann: float
    """Mean over samples of the main exit's cross entropy, in nats."""
    cross_entropy_snn: float
    spike_rate: float
    """Mean over all neurons of the network."""
    spike_rates: dict[str, float]
    """By activation layer: spikes per neuron and time step, in [0, 1]."""
    samples: int

    def as_line(self) -> dict[str, Any]:
        """Plain values for a line of metrics."""
        return dict(encode(self))


class _Totals:
    """Sums over batches, in float64 on the host."""

    def __init__(self, exits: int, layers: int) -> None:
        self.samples = 0
        self.correct = {twin: np.zeros(exits, np.int64) for twin in TWINS}
        self.cross_entropy = dict.fromkeys(TWINS, 0.0)
        self.spikes = np.zeros(layers)

    def add(self, logits: Mapping[str, Values], labels: NDArray[np.int64], rates: Values) -> None:
        size = len(labels)
        self.samples += size
        for twin in TWINS:
            scores = logits[twin].astype(np.float64)
            self.correct[twin] += (scores.argmax(axis=-1) == labels).sum(axis=-1)
            shifted = scores[-1] - scores[-1].max(axis=-1, keepdims=True)
            log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
            self.cross_entropy[twin] -= float(log_p[np.arange(size), labels].sum())
        self.spikes += rates.astype(np.float64) * size

    def share(self, group: Group) -> None:
        """Add up what all processes have counted (clause DEV-7)."""
        if group.world_size == 1:
            return
        self.samples = int(group.total(np.array([self.samples]))[0])
        self.correct = {twin: group.total(correct) for twin, correct in self.correct.items()}
        entropies = group.total(np.array(list(self.cross_entropy.values())))
        self.cross_entropy = {twin: float(value) for twin, value in zip(self.cross_entropy, entropies, strict=True)}
        self.spikes = group.total(self.spikes)


def evaluate(ready: Ready, state: Any, part: Literal["test", "validation"] = "test") -> Result:
    """Run both twins over the samples of a part.

    Args:
        ready: the run's program and data.
        state: of the program; left as it was.
        part: the test samples, or those held out of training.
    """
    dataset, session = ready.dataset, ready.session
    size = dataset.test_size if part == "test" else dataset.validation_size
    require(size > 0, "data", expected=f"{part} samples to evaluate on", got="none")
    names = ready.network.activations
    totals = _Totals(len(ready.network.exits), len(names))

    def take(evaluation: Evaluation, labels: NDArray[np.int64]) -> None:
        logits = {"ann": session.to_numpy(evaluation.logits_ann), "snn": session.to_numpy(evaluation.logits_snn)}
        totals.add(logits, labels, session.to_numpy(evaluation.spike_rates))

    waiting: tuple[Evaluation, NDArray[np.int64]] | None = None
    group = ready.group
    own = len(range(size)[portion(size, group.world_size, group.rank)])
    most = even(max(1, own), ready.config.training.batch_size)
    for images, labels in dataset.test_batches(most, part, process=group.rank, processes=group.world_size):
        # The device gets the next batch before the host waits for the last one.
        current = (ready.program.evaluate(state, images), labels)
        if waiting is not None:
            take(*waiting)
        waiting = current
    if waiting is not None:
        take(*waiting)
    totals.share(group)
    for twin, value in totals.cross_entropy.items():
        require(
            math.isfinite(value), f"logits of the {twin} twin", expected=f"finite {part} logits", got=f"cross entropy {value}"
        )
    n = totals.samples
    require(n == size, f"evaluation of {part} samples", expected=f"each of {size} counted once", got=f"{n} counted")
    exits = {twin: tuple(float(c) / n for c in totals.correct[twin]) for twin in TWINS}
    rates = {name: float(r) / n for name, r in zip(names, totals.spikes, strict=True)}
    shapes = infer_shapes(ready.network)
    neurons = [math.prod(shapes[name]) for name in names]
    return Result(
        accuracy_ann=exits["ann"][-1],
        accuracy_snn=exits["snn"][-1],
        accuracy_exits_ann=exits["ann"],
        accuracy_exits_snn=exits["snn"],
        cross_entropy_ann=totals.cross_entropy["ann"] / n,
        cross_entropy_snn=totals.cross_entropy["snn"] / n,
        spike_rate=float(np.average(list(rates.values()), weights=neurons)) if rates else 0.0,
        spike_rates=rates,
        samples=n,
    )


def even(samples: int, most: int) -> int:
    """Size of batches: all alike, where that costs at most twice as many, so that a compiled evaluation is compiled once.

    Args:
        samples: how many there are, >= 1.
        most: of a batch, >= 1.
    """
    return next((size for size in range(most, most // 2, -1) if samples % size == 0), most)


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What one twin's inference costs (clauses ENE-*)."""

    static: Static
    workload: Workload | None
    """Of the samples that were traced; None if none were."""

    def as_line(self) -> dict[str, Any]:
        """Plain values: the counts, summed over the samples, and the two shares."""
        line = dict(encode(self.static)) | {"connection_sparsity": self.static.connection_sparsity}
        if self.workload is not None:
            line |= dict(encode(self.workload)) | {"activation_sparsity": self.workload.activation_sparsity}
        return line


def count(ready: Ready, values: State, samples: int) -> dict[Twin, Counted]:
    """Count kernels and bytes of both twins, and what they do with the first test samples.

    Args:
        ready: the run's program and data.
        values: a checkpoint's state.
        samples: how many are traced, 0 or more; all there are where there are fewer.
    """
    network, method = ready.network, ready.config.method
    work: dict[Twin, Workload] = {}
    left, state = min(samples, ready.dataset.test_size), ready.program.load(values)
    if left > 0:
        axis = 1 if network.event else 0
        for images, _ in ready.dataset.test_batches(min(left, ready.config.training.batch_size)):
            part = np.take(images, range(min(left, images.shape[axis])), axis=axis)
            trace = ready.program.trace(state, part)
            for twin in TWINS:
                found = workload(network, method, twin, values, part, trace)
                work[twin] = work[twin] + found if twin in work else found
            left -= part.shape[axis]
            if left == 0:
                break
    return {twin: Counted(static=static(network, method, twin, values), workload=work.get(twin)) for twin in TWINS}


def deviations(state: Mapping[str, Values]) -> dict[str, float]:
    """How far each factored layer's U and V are from orthonormal (clause ORT-1), by layer.

    Args:
        state: as `Program.dump` gives it.
    """
    found = {}
    for name, u in state.items():
        layer, part = layer_and_part(name)
        if part == "U" and "/" not in name:
            found[layer] = deviation(u.astype(np.float64), state[f"{layer}.V"].astype(np.float64))
    return found
