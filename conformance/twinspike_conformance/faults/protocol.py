"""Faults of programs that answer each call rightly by itself: what they do to what was given, said or asked before.

Each differs on use that the protocol admits: any order of calls, any state, batch and learning rate, images that lie in memory
in any way, what was answered kept for as long as one likes. They wrap a right program whose arrays are NumPy's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Metrics, Program
from twinspike.errors import refuse
from twinspike.parameters import STEP, Entry
from twinspike_conformance.faults.base import Fault
from twinspike_conformance.faults.within import ProgramWithin

Values = NDArray[Any]

PROGRAMS: dict[str, type[ProgramWithin]] = {}
"""Fault -> the program that has it."""
FAULTS: list[Fault] = []


def _fault(name: str, clause: str = "PRE-4", origin: str = "") -> Callable[[type[ProgramWithin]], type[ProgramWithin]]:
    """Enter a faulty program, whose docstring says what it does."""

    def enter(kind: type[ProgramWithin]) -> type[ProgramWithin]:
        PROGRAMS[name] = kind
        FAULTS.append(Fault(name, clause, str(kind.__doc__).rstrip("."), origin=origin))
        return kind

    return enter


# --- the state ---------------------------------------------------------------------------------------


@_fault("proto-gradients-move", origin="a forward pass in training mode moves a torch module's running statistics")
class _GradientsMove(ProgramWithin):
    """gradients() leaves the running statistics of its batch in the state."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        moved, _ = self.inner.train_step(self.inner.load(self.inner.dump(state)), images, labels, 0.0)
        found = self.inner.gradients(state, images, labels)
        state.update({k: v for k, v in moved.items() if ".mean_" in k or ".var_" in k})
        return found


@_fault("proto-gradients-count")
class _GradientsCount(ProgramWithin):
    """gradients() counts as a step."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        found = self.inner.gradients(state, images, labels)
        state[STEP] = state[STEP] + 1
        return found


@_fault("proto-trace-moves", origin="as of gradients()")
class _TraceMoves(ProgramWithin):
    """trace() in training mode leaves the running statistics of its batch in the state."""

    def trace(self, state: Any, images: Values, *, training: bool = False, labels: Values | None = None) -> Any:
        found = self.inner.trace(state, images, training=training, labels=labels)
        if training:
            for k in state:
                if ".mean_" in k:
                    state[k] = state[k] * 0.9
        return found


@_fault("proto-evaluate-slots")
class _EvaluateSlots(ProgramWithin):
    """evaluate() empties the optimizer's slots."""

    def evaluate(self, state: Any, images: Values) -> Any:
        found = self.inner.evaluate(state, images)
        for k in state:
            if k.startswith("optimizer/") and k != STEP:
                state[k] = np.zeros_like(state[k])
        return found


@_fault("proto-dump-lends")
class _DumpLends(ProgramWithin):
    """dump() lends the state's own arrays: who writes into a dump changes the state."""

    def dump(self, state: Any) -> Any:
        return dict(state)


@_fault("proto-load-borrows", origin="torch.from_numpy and jax.device_put may share memory with what they are given")
class _LoadBorrows(ProgramWithin):
    """load() borrows the arrays that it is given: who writes into them later changes the state."""

    def load(self, values: Mapping[str, Values]) -> Any:
        return {k: values[k] for k in self.inner.load(values)}


@_fault("proto-one-state")
class _OneState(ProgramWithin):
    """A program has memory for one state: the next load() overwrites an earlier one."""

    def __init__(self, inner: Program) -> None:
        super().__init__(inner)
        self.memory: dict[str, Values] = {}

    def load(self, values: Mapping[str, Values]) -> Any:
        self.memory.update(self.inner.load(values))
        return self.memory


@_fault("proto-images-written")
class _ImagesWritten(ProgramWithin):
    """Images are normalized where they lie."""

    def evaluate(self, state: Any, images: Values) -> Any:
        found = self.inner.evaluate(state, images)
        images -= images.mean()
        return found

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        found = self.inner.gradients(state, images, labels)
        images -= images.mean()
        return found


@_fault("proto-gradients-in-state")
class _GradientsInState(ProgramWithin):
    """gradients() rounds the parameters in the state to float32."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        for k, v in state.items():
            if v.dtype.kind == "f":
                state[k] = v.astype(np.float32).astype(v.dtype) * (1 + 2.0**-20)
        return self.inner.gradients(state, images, labels)


# --- what was answered before ------------------------------------------------------------------------


class _Buffered(ProgramWithin):
    """Writes each answer where the one before it lies."""

    def __init__(self, inner: Program) -> None:
        super().__init__(inner)
        self.memory: dict[Any, Values] = {}

    def kept(self, key: Any, value: Any) -> Values:
        """The value, in the memory that its key has."""
        value = np.asarray(value)
        place = self.memory.get((key, value.shape, value.dtype.str))
        if place is None:
            place = self.memory[key, value.shape, value.dtype.str] = np.array(value)
        place[...] = value
        return place

    def struct(self, found: Any) -> Any:
        """Metrics or an evaluation, likewise."""
        return type(found)(**{k: self.kept((type(found), k), getattr(found, k)) for k in found.__struct_fields__})


@_fault("proto-metrics-overwritten", origin="static output buffers of CUDA graphs")
class _MetricsOverwritten(_Buffered):
    """A step's metrics lie where the next step's will."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        after, metrics = self.inner.train_step(state, images, labels, learning_rate)
        return after, self.struct(metrics)


@_fault("proto-gradient-metrics-overwritten")
class _GradientMetricsOverwritten(_Buffered):
    """The metrics beside gradients lie where the next ones will."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        found, metrics = self.inner.gradients(state, images, labels)
        return found, self.struct(metrics)


@_fault("proto-gradients-overwritten", origin="Tensor.grad that is written into, and handed out by Tensor.numpy()")
class _GradientsOverwritten(_Buffered):
    """Gradients lie where the next ones will."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        found, metrics = self.inner.gradients(state, images, labels)
        return {k: self.kept(k, v) for k, v in found.items()}, metrics


@_fault("proto-evaluation-overwritten")
class _EvaluationOverwritten(_Buffered):
    """An evaluation's logits and rates lie where the next one's will."""

    def evaluate(self, state: Any, images: Values) -> Any:
        return self.struct(self.inner.evaluate(state, images))


@_fault("proto-trace-overwritten")
class _TraceOverwritten(_Buffered):
    """A trace's values lie where the next one's will."""

    def trace(self, state: Any, images: Values, *, training: bool = False, labels: Values | None = None) -> Any:
        taps = self.inner.trace(state, images, training=training, labels=labels)
        return {layer: {k: self.kept((layer, k), v) for k, v in tap.items()} for layer, tap in taps.items()}


@_fault("proto-dump-overwritten")
class _DumpOverwritten(_Buffered):
    """A dump's arrays lie where the next one's will."""

    def dump(self, state: Any) -> Any:
        return {k: self.kept(k, v) for k, v in self.inner.dump(state).items()}


# --- what was asked before ---------------------------------------------------------------------------


class _First(ProgramWithin):
    """Remembers of what it was asked first."""

    def __init__(self, inner: Program) -> None:
        super().__init__(inner)
        self.seen: dict[Any, Any] = {}

    def first(self, key: Any, value: Any) -> Any:
        """What came first under a key."""
        return self.seen.setdefault(key, value)


@_fault("proto-evaluate-first-state", origin="parameters that a compiled function captured")
class _EvaluateFirstState(_First):
    """evaluate() uses the parameters that it was first given."""

    def evaluate(self, state: Any, images: Values) -> Any:
        return self.inner.evaluate(self.first("state", dict(state)), images)


@_fault("proto-evaluate-first-statistics")
class _EvaluateFirstStatistics(_First):
    """evaluate() uses the running statistics that it was first given."""

    def evaluate(self, state: Any, images: Values) -> Any:
        kept = self.first("state", {k: v for k, v in state.items() if ".mean_" in k or ".var_" in k})
        return self.inner.evaluate(dict(state) | kept, images)


@_fault("proto-gradients-first-sigma", origin="kernels that are composed once")
class _GradientsFirstSigma(_First):
    """gradients() uses the singular values that it was first given."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        kept = self.first("state", {k: v for k, v in state.items() if ".sigma_" in k})
        return self.inner.gradients(dict(state) | kept, images, labels)


@_fault("proto-step-first-slots")
class _StepFirstSlots(_First):
    """train_step() starts each time from the slots that it was first given."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        kept = self.first("state", {k: v for k, v in state.items() if k.startswith("optimizer/") and k != STEP})
        return self.inner.train_step(dict(state) | kept, images, labels, learning_rate)


@_fault("proto-step-first-rate", origin="a learning rate that jit took for a constant")
class _StepFirstRate(_First):
    """train_step() uses the learning rate that it was first given."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        return self.inner.train_step(state, images, labels, self.first("rate", learning_rate))


@_fault("proto-step-first-count")
class _StepFirstCount(_First):
    """train_step() counts on from the counter that it was first given, whatever state it is given."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        count = self.first("count", int(state[STEP]))
        self.seen["count"] = count + 1
        return self.inner.train_step(dict(state) | {STEP: np.asarray(count)}, images, labels, learning_rate)


@_fault("proto-evaluate-first-images")
class _EvaluateFirstImages(_First):
    """evaluate() answers images of a shape that it has seen with the answer to those."""

    def evaluate(self, state: Any, images: Values) -> Any:
        return self.inner.evaluate(state, self.first(images.shape, images.copy()))


@_fault("proto-gradients-first-labels")
class _GradientsFirstLabels(_First):
    """gradients() and train_step() use the labels that they were first given for that many samples."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        return self.inner.gradients(state, images, self.first(labels.shape, labels.copy()))

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        return self.inner.train_step(state, images, self.first(labels.shape, labels.copy()), learning_rate)


@_fault("proto-trace-first-mode", origin="a flag that a traced function captured")
class _TraceFirstMode(_First):
    """trace() runs in the mode that it was first asked for."""

    def trace(self, state: Any, images: Values, *, training: bool = False, labels: Values | None = None) -> Any:
        return self.inner.trace(state, images, training=self.first("mode", training), labels=labels)


@_fault("proto-batch-first-size", origin="a mean over the batch whose divisor was traced as a constant")
class _BatchFirstSize(_First):
    """Gradients are divided by the number of samples that there were first."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        share = len(labels) / self.first("size", len(labels))
        found, metrics = self.inner.gradients(state, images, labels)
        return {k: v * share for k, v in found.items()}, metrics


@_fault("proto-batch-loss-first-size")
class _BatchLossFirstSize(_First):
    """The losses of a step are divided by the number of samples that there were first."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        share = len(labels) / self.first("size", len(labels))
        after, metrics = self.inner.train_step(state, images, labels, learning_rate)
        return after, msgspec.structs.replace(metrics, loss=np.asarray(metrics.loss * share))


@_fault("proto-batch-padded", origin="static shapes: batches are padded to the largest one seen")
class _BatchPadded(_First):
    """Statistics of a smaller batch than one before it count zeros for the samples that lack."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        most = self.seen["most"] = max(self.seen.get("most", 0), len(labels))
        share = len(labels) / most
        after, metrics = self.inner.train_step(state, images, labels, learning_rate)
        return {k: v * share if ".mean_" in k else v for k, v in after.items()}, metrics


@_fault("proto-evaluate-stale", origin="weights that are folded into a kernel and not folded again after a step")
class _EvaluateStale(_First):
    """evaluate() after a step uses what the state was before it."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        self.seen["before"] = dict(state)
        return self.inner.train_step(state, images, labels, learning_rate)

    def evaluate(self, state: Any, images: Values) -> Any:
        return self.inner.evaluate(self.seen.get("before", state), images)


@_fault("proto-step-after-evaluation", origin="module.eval() without module.train() after it")
class _StepAfterEvaluation(_First):
    """A step after an evaluation leaves the running statistics as they were."""

    def evaluate(self, state: Any, images: Values) -> Any:
        self.seen["evaluated"] = True
        return self.inner.evaluate(state, images)

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        kept = {k: v for k, v in state.items() if ".mean_" in k or ".var_" in k}
        after, metrics = self.inner.train_step(state, images, labels, learning_rate)
        return (dict(after) | kept if self.seen.get("evaluated") else after), metrics


@_fault("proto-step-after-gradients", origin="gradients that are not set to zero before the next backward pass")
class _StepAfterGradients(_First):
    """A step after gradients() adds those to its own."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        found, metrics = self.inner.gradients(state, images, labels)
        self.seen["left"] = found
        return found, metrics

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        after, metrics = self.inner.train_step(state, images, labels, learning_rate)
        left = self.seen.pop("left", {})
        return {k: v - learning_rate * left[k] if k in left else v for k, v in after.items()}, metrics


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


@_fault("proto-images-column-order", origin="a pointer that is handed on without its strides")
class _ImagesColumnOrder(_Reading):
    """Images in column order are read in the order of memory."""

    def read(self, images: Values) -> Any:
        if images.flags.f_contiguous and not images.flags.c_contiguous:
            return images.ravel(order="K").reshape(images.shape)
        return images


@_fault("proto-images-strided", origin="a pointer that is handed on without its strides")
class _ImagesStrided(_Reading):
    """Of images that lie apart in memory the gaps are read too."""

    def read(self, images: Values) -> Any:
        base = images.base
        if base is not None and not images.flags.c_contiguous and not images.flags.f_contiguous and base.size >= images.size:
            return np.ascontiguousarray(base).ravel()[: images.size].reshape(images.shape)
        return images


@_fault("proto-images-reversed", origin="negative strides, which torch.from_numpy refuses")
class _ImagesReversed(_Reading):
    """Images with a negative stride are refused."""

    def read(self, images: Values) -> Any:
        if min(images.strides) < 0:
            raise refuse("images", expected="strides > 0", got=images.strides)
        return images


@_fault("proto-images-read-only")
class _ImagesReadOnly(_Reading):
    """Images that can't be written to are refused."""

    def read(self, images: Values) -> Any:
        if not images.flags.writeable:
            raise refuse("images", expected="memory that can be written to", got="none")
        return images


@_fault("proto-images-other-float")
class _ImagesOtherFloat(_Reading):
    """float32 images are taken for bytes and divided by 255."""

    def read(self, images: Values) -> Any:
        return images / 255 if images.dtype == np.float32 else images


@_fault("proto-images-float64-rounded", "PRE-1")
class _ImagesFloat64Rounded(_Reading):
    """Images are rounded to bfloat16 on their way in where they come as float32."""

    def read(self, images: Values) -> Any:
        return (images.astype(np.float64) * 64).round() / 64 if images.dtype == np.float32 else images


@_fault("proto-images-bytes")
class _ImagesBytes(_Reading):
    """Images of bytes are taken and divided by 255, where they are to be refused."""

    def read(self, images: Values) -> Any:
        return images / 255 if images.dtype == np.uint8 else images


@_fault("proto-labels-strided", origin="a pointer that is handed on without its strides")
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


@_fault("proto-load-slots-lacking", origin="an optimizer's state that is not in a checkpoint starts anew")
class _LoadSlotsLacking(_Lenient):
    """A state without slots is taken, and they start at 0."""

    lacking = staticmethod(lambda entry: entry.kind == "slot")


@_fault("proto-load-counter-lacking")
class _LoadCounterLacking(_Lenient):
    """A state without its counter is taken, which starts at 0."""

    lacking = staticmethod(lambda entry: entry.kind == "counter")


@_fault("proto-load-statistics-lacking", origin="load_state_dict(strict=False)")
class _LoadStatisticsLacking(_Lenient):
    """A state without running statistics is taken."""

    lacking = staticmethod(lambda entry: entry.kind == "statistic")


@_fault("proto-load-more", origin="load_state_dict(strict=False)")
class _LoadMore(ProgramWithin):
    """Arrays of a state that the network does not have are overlooked."""

    def load(self, values: Mapping[str, Values]) -> Any:
        return self.inner.load({e.name: values[e.name] for e in self.entries if e.name in values})


@_fault("proto-load-column-order", origin="a pointer that is handed on without its strides")
class _LoadColumnOrder(ProgramWithin):
    """Arrays of a state that lie in column order are read in the order of memory."""

    def load(self, values: Mapping[str, Values]) -> Any:
        return self.inner.load({k: v.ravel(order="K").reshape(v.shape) for k, v in values.items()})


@_fault("proto-dump-short-counter", "OPT-3", origin="int32, the widest integer of jax without jax_enable_x64")
class _DumpShortCounter(ProgramWithin):
    """The counter is dumped as int32."""

    def dump(self, state: Any) -> Any:
        found = self.inner.dump(state)
        return found | {STEP: found[STEP].astype(np.int32)}


@_fault("proto-dump-wide", "PRE-1")
class _DumpWide(ProgramWithin):
    """Floats are dumped in a wider format than they are stored in."""

    def dump(self, state: Any) -> Any:
        return {k: v.astype(np.longdouble) if v.dtype.kind == "f" else v for k, v in self.inner.dump(state).items()}


@_fault("proto-dump-byte-order", "PRE-1")
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


@_fault("proto-recompute-twice", "BN-2", origin="torch.utils.checkpoint runs batch norm twice")
class _RecomputeTwice(ProgramWithin):
    """With recompute, running statistics are moved again by the second pass."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        once, _ = self.inner.train_step(self.inner.load(self.inner.dump(state)), images, labels, 0.0)
        moved = {k: v for k, v in once.items() if ".mean_" in k or ".var_" in k}
        return self.inner.train_step(dict(state) | moved, images, labels, learning_rate)


@_fault("proto-recompute-refused")
class _RecomputeRefused(ProgramWithin):
    """With recompute, a training step is refused."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        raise refuse("recompute", expected="false", got=True)


@_fault("proto-recompute-half", "FAC-7")
class _RecomputeHalf(ProgramWithin):
    """With recompute, the gradient of V is that of one twin's pass, half of it."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        found, metrics = self.inner.gradients(state, images, labels)
        return {k: np.multiply(v, 0.5) if k.endswith(".V") else v for k, v in found.items()}, metrics


@_fault("proto-recompute-first", "BN-1")
class _RecomputeFirst(_First):
    """With recompute, the second pass sees the images that came first."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        return self.inner.gradients(state, self.first(images.shape, images.copy()), labels)


@_fault("proto-recompute-rate", "OPT-2")
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


@_fault("proto-metrics-no-loss", "DIS-1")
class _MetricsNoLoss(_Reporting):
    """A step reports a loss of 0."""

    def report(self, metrics: Metrics) -> Any:
        return msgspec.structs.replace(metrics, loss=np.zeros(()))


@_fault("proto-metrics-no-spikes", "LIF-2")
class _MetricsNoSpikes(_Reporting):
    """A step reports no spikes."""

    def report(self, metrics: Metrics) -> Any:
        return msgspec.structs.replace(metrics, spike_rate=np.zeros(()))


@_fault("proto-metrics-swapped", "DIS-1")
class _MetricsSwapped(_Reporting):
    """A step reports the cross entropies of the other twins."""

    def report(self, metrics: Metrics) -> Any:
        other = {"cross_entropy_ann": metrics.cross_entropy_snn, "cross_entropy_snn": metrics.cross_entropy_ann}
        return msgspec.structs.replace(metrics, **other)


@_fault("proto-metrics-hits", "OUT-3")
class _MetricsHits(_Reporting):
    """A step reports the hits of the artificial twin for both."""

    def report(self, metrics: Metrics) -> Any:
        return msgspec.structs.replace(metrics, correct_snn=metrics.correct_ann)


@_fault("proto-metrics-late", "DIS-1")
class _MetricsLate(_First):
    """A step reports the step before it, as far as there was one."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        after, metrics = self.inner.train_step(state, images, labels, learning_rate)
        before, self.seen["metrics"] = self.seen.get("metrics", metrics), metrics
        return after, before


@_fault("proto-metrics-after", "DIS-1")
class _MetricsAfter(ProgramWithin):
    """A step reports the loss that its batch has after it."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        after, _ = self.inner.train_step(state, images, labels, learning_rate)
        return after, self.inner.gradients(after, images, labels)[1]
