"""Faults of programs that take only some forms of what the protocol admits, or leave forms that it does not: images and states
in memory, what lacks, formats of dumps, recomputation, and what a step reports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Metrics
from twinspike.errors import refuse
from twinspike.parameters import STEP, Entry
from twinspike_conformance.faults.protocol_base import First, fault
from twinspike_conformance.faults.within import ProgramWithin

Values = NDArray[Any]

# --- images that lie in memory otherwise -------------------------------------------------------------


class _Reading(ProgramWithin):
    """Reads images in a way of its own."""

    def read(self, images: Values) -> Values:
        """What it takes images for."""
        return images

    def evaluate(self, state: Any, images: Values) -> Any:
        return self.inner.evaluate(state, self.read(images))

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        return self.inner.gradients(state, self.read(images), labels)

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        return self.inner.train_step(state, self.read(images), labels, learning_rate)


@fault("proto-images-column-order", origin="a pointer that is handed on without its strides")
class _ImagesColumnOrder(_Reading):
    """Images in column order are read in the order of memory."""

    def read(self, images: Values) -> Any:
        if images.flags.f_contiguous and not images.flags.c_contiguous:
            return images.ravel(order="K").reshape(images.shape)
        return images


@fault("proto-images-strided", origin="a pointer that is handed on without its strides")
class _ImagesStrided(_Reading):
    """Of images that lie apart in memory the gaps are read too."""

    def read(self, images: Values) -> Any:
        base = images.base
        if base is not None and not images.flags.c_contiguous and not images.flags.f_contiguous and base.size >= images.size:
            return np.ascontiguousarray(base).ravel()[: images.size].reshape(images.shape)
        return images


@fault("proto-images-reversed", origin="negative strides, which torch.from_numpy refuses")
class _ImagesReversed(_Reading):
    """Images with a negative stride are refused."""

    def read(self, images: Values) -> Any:
        if min(images.strides) < 0:
            raise refuse("images", expected="strides > 0", got=images.strides)
        return images


@fault("proto-images-read-only")
class _ImagesReadOnly(_Reading):
    """Images that can't be written to are refused."""

    def read(self, images: Values) -> Any:
        if not images.flags.writeable:
            raise refuse("images", expected="memory that can be written to", got="none")
        return images


@fault("proto-images-other-float")
class _ImagesOtherFloat(_Reading):
    """float32 images are taken for bytes and divided by 255."""

    def read(self, images: Values) -> Any:
        return images / 255 if images.dtype == np.float32 else images


@fault("proto-images-float64-rounded", "PRE-1")
class _ImagesFloat64Rounded(_Reading):
    """Images are rounded to bfloat16 on their way in where they come as float32."""

    def read(self, images: Values) -> Any:
        return (images.astype(np.float64) * 64).round() / 64 if images.dtype == np.float32 else images


@fault("proto-images-bytes")
class _ImagesBytes(_Reading):
    """Images of bytes are taken and divided by 255, where they are to be refused."""

    def read(self, images: Values) -> Any:
        return images / 255 if images.dtype == np.uint8 else images


@fault("proto-labels-strided", origin="a pointer that is handed on without its strides")
class _LabelsStrided(ProgramWithin):
    """Labels that lie apart in memory are read one after the other."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        return self.inner.gradients(state, images, _dense(labels))

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        return self.inner.train_step(state, images, _dense(labels), learning_rate)


def _dense(labels: Values) -> Values:
    apart = labels.base is not None and not labels.flags.c_contiguous
    return np.ascontiguousarray(labels.base).ravel()[: len(labels)] if apart else labels


# --- what lacks, and in what format ------------------------------------------------------------------


class _Lenient(ProgramWithin):
    """Takes zeros for arrays that a state lacks."""

    lacking: Callable[[Entry], bool]

    def load(self, values: Mapping[str, Values]) -> Any:
        lacking = [e for e in self.entries if e.name not in values and type(self).lacking(e)]
        kinds = {"counter": np.int64}
        return self.inner.load({**values, **{e.name: np.zeros(e.shape, kinds.get(e.kind, np.float64)) for e in lacking}})


@fault("proto-load-slots-lacking", origin="an optimizer's state that is not in a checkpoint starts anew")
class _LoadSlotsLacking(_Lenient):
    """A state without slots is taken, and they start at 0."""

    lacking = staticmethod(lambda entry: entry.kind == "slot")


@fault("proto-load-counter-lacking")
class _LoadCounterLacking(_Lenient):
    """A state without its counter is taken, which starts at 0."""

    lacking = staticmethod(lambda entry: entry.kind == "counter")


@fault("proto-load-statistics-lacking", origin="load_state_dict(strict=False)")
class _LoadStatisticsLacking(_Lenient):
    """A state without running statistics is taken."""

    lacking = staticmethod(lambda entry: entry.kind == "statistic")


@fault("proto-load-more", origin="load_state_dict(strict=False)")
class _LoadMore(ProgramWithin):
    """Arrays of a state that the network does not have are overlooked."""

    def load(self, values: Mapping[str, Values]) -> Any:
        return self.inner.load({e.name: values[e.name] for e in self.entries if e.name in values})


@fault("proto-load-column-order", origin="a pointer that is handed on without its strides")
class _LoadColumnOrder(ProgramWithin):
    """Arrays of a state that lie in column order are read in the order of memory."""

    def load(self, values: Mapping[str, Values]) -> Any:
        return self.inner.load({k: v.ravel(order="K").reshape(v.shape) for k, v in values.items()})


@fault("proto-dump-short-counter", "OPT-3", origin="int32, the widest integer of jax without jax_enable_x64")
class _DumpShortCounter(ProgramWithin):
    """The counter is dumped as int32."""

    def dump(self, state: Any) -> Any:
        found = self.inner.dump(state)
        return found | {STEP: found[STEP].astype(np.int32)}


@fault("proto-dump-wide", "PRE-1")
class _DumpWide(ProgramWithin):
    """Floats are dumped in a wider format than they are stored in."""

    def dump(self, state: Any) -> Any:
        return {k: v.astype(np.longdouble) if v.dtype.kind == "f" else v for k, v in self.inner.dump(state).items()}


@fault("proto-dump-byte-order", "PRE-1")
class _DumpOther(ProgramWithin):
    """Statistics are dumped with the other byte order."""

    def dump(self, state: Any) -> Any:
        found = self.inner.dump(state)
        return {k: v.astype(v.dtype.newbyteorder()) if ".mean_" in k or ".var_" in k else v for k, v in found.items()}


# --- recomputation -----------------------------------------------------------------------------------

RECOMPUTED = frozenset(
    {"proto-recompute-twice", "proto-recompute-refused", "proto-recompute-half", "proto-recompute-first", "proto-recompute-rate"}
)
"""Faults of programs that recompute."""


@fault("proto-recompute-twice", "BN-2", origin="torch.utils.checkpoint runs batch norm twice")
class _RecomputeTwice(ProgramWithin):
    """With recompute, running statistics are moved again by the second pass."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        once, _ = self.inner.train_step(self.inner.load(self.inner.dump(state)), images, labels, 0.0)
        moved = {k: v for k, v in once.items() if ".mean_" in k or ".var_" in k}
        return self.inner.train_step(dict(state) | moved, images, labels, learning_rate)


@fault("proto-recompute-refused")
class _RecomputeRefused(ProgramWithin):
    """With recompute, a training step is refused."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        raise refuse("recompute", expected="false", got=True)


@fault("proto-recompute-half", "FAC-7")
class _RecomputeHalf(ProgramWithin):
    """With recompute, the gradient of V is that of one twin's pass, half of it."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        found, metrics = self.inner.gradients(state, images, labels)
        return {k: np.multiply(v, 0.5) if k.endswith(".V") else v for k, v in found.items()}, metrics


@fault("proto-recompute-first", "BN-1")
class _RecomputeFirst(First):
    """With recompute, the second pass sees the images that came first."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        return self.inner.gradients(state, self.first(images.shape, images.copy()), labels)


@fault("proto-recompute-rate", "OPT-2")
class _RecomputeRate(ProgramWithin):
    """With recompute, a step is made twice, each with half of the learning rate."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        after, _ = self.inner.train_step(state, images, labels, learning_rate / 2)
        after, metrics = self.inner.train_step(after, images, labels, learning_rate / 2)
        return after | {STEP: after[STEP] - 1}, metrics


# --- what a step reports -----------------------------------------------------------------------------


class _Reporting(ProgramWithin):
    """Reports of a step in a way of its own."""

    def report(self, metrics: Metrics) -> Metrics:
        """What it reports for what is right."""
        return metrics

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        after, metrics = self.inner.train_step(state, images, labels, learning_rate)
        return after, self.report(metrics)


@fault("proto-metrics-no-loss", "DIS-1")
class _MetricsNoLoss(_Reporting):
    """A step reports a loss of 0."""

    def report(self, metrics: Metrics) -> Any:
        return msgspec.structs.replace(metrics, loss=np.zeros(()))


@fault("proto-metrics-no-spikes", "LIF-2")
class _MetricsNoSpikes(_Reporting):
    """A step reports no spikes."""

    def report(self, metrics: Metrics) -> Any:
        return msgspec.structs.replace(metrics, spike_rate=np.zeros(()))


@fault("proto-metrics-swapped", "DIS-1")
class _MetricsSwapped(_Reporting):
    """A step reports the cross entropies of the other twins."""

    def report(self, metrics: Metrics) -> Any:
        other = {"cross_entropy_ann": metrics.cross_entropy_snn, "cross_entropy_snn": metrics.cross_entropy_ann}
        return msgspec.structs.replace(metrics, **other)


@fault("proto-metrics-hits", "OUT-3")
class _MetricsHits(_Reporting):
    """A step reports the hits of the artificial twin for both."""

    def report(self, metrics: Metrics) -> Any:
        return msgspec.structs.replace(metrics, correct_snn=metrics.correct_ann)


@fault("proto-metrics-late", "DIS-1")
class _MetricsLate(First):
    """A step reports the step before it, as far as there was one."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        after, metrics = self.inner.train_step(state, images, labels, learning_rate)
        before, self.seen["metrics"] = self.seen.get("metrics", metrics), metrics
        return after, before


@fault("proto-metrics-after", "DIS-1")
class _MetricsAfter(ProgramWithin):
    """A step reports the loss that its batch has after it."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        after, _ = self.inner.train_step(state, images, labels, learning_rate)
        return after, self.inner.gradients(after, images, labels)[1]
