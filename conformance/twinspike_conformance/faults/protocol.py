"""Faults of programs that answer each call rightly by itself: what they do to what was given, said or asked before.

Each differs on use that the protocol admits: any order of calls, any state, batch and learning rate, what was answered kept
for as long as one likes. They wrap a right program whose arrays are NumPy's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Program
from twinspike.parameters import STEP
from twinspike_conformance.faults.protocol_base import First, fault
from twinspike_conformance.faults.within import ProgramWithin

Values = NDArray[Any]

# --- the state ---------------------------------------------------------------------------------------


@fault("proto-gradients-move", origin="a forward pass in training mode moves a torch module's running statistics")
class _GradientsMove(ProgramWithin):
    """gradients() leaves the running statistics of its batch in the state."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        moved, _ = self.inner.train_step(self.inner.load(self.inner.dump(state)), images, labels, 0.0)
        found = self.inner.gradients(state, images, labels)
        state.update({k: v for k, v in moved.items() if ".mean_" in k or ".var_" in k})
        return found


@fault("proto-gradients-count")
class _GradientsCount(ProgramWithin):
    """gradients() counts as a step."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        found = self.inner.gradients(state, images, labels)
        state[STEP] = state[STEP] + 1
        return found


@fault("proto-trace-moves", origin="as of gradients()")
class _TraceMoves(ProgramWithin):
    """trace() in training mode leaves the running statistics of its batch in the state."""

    def trace(self, state: Any, images: Values, *, training: bool = False, labels: Values | None = None) -> Any:
        found = self.inner.trace(state, images, training=training, labels=labels)
        if training:
            for k in state:
                if ".mean_" in k:
                    state[k] = state[k] * 0.9
        return found


@fault("proto-evaluate-slots")
class _EvaluateSlots(ProgramWithin):
    """evaluate() empties the optimizer's slots."""

    def evaluate(self, state: Any, images: Values) -> Any:
        found = self.inner.evaluate(state, images)
        for k in state:
            if k.startswith("optimizer/") and k != STEP:
                state[k] = np.zeros_like(state[k])
        return found


@fault("proto-dump-lends")
class _DumpLends(ProgramWithin):
    """dump() lends the state's own arrays: who writes into a dump changes the state."""

    def dump(self, state: Any) -> Any:
        return dict(state)


@fault("proto-load-borrows", origin="torch.from_numpy and jax.device_put may share memory with what they are given")
class _LoadBorrows(ProgramWithin):
    """load() borrows the arrays that it is given: who writes into them later changes the state."""

    def load(self, values: Mapping[str, Values]) -> Any:
        return {k: values[k] for k in self.inner.load(values)}


@fault("proto-one-state")
class _OneState(ProgramWithin):
    """A program has memory for one state: the next load() overwrites an earlier one."""

    def __init__(self, inner: Program) -> None:
        super().__init__(inner)
        self.memory: dict[str, Values] = {}

    def load(self, values: Mapping[str, Values]) -> Any:
        self.memory.update(self.inner.load(values))
        return self.memory


@fault("proto-images-written")
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


@fault("proto-gradients-in-state")
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


@fault("proto-metrics-overwritten", origin="static output buffers of CUDA graphs")
class _MetricsOverwritten(_Buffered):
    """A step's metrics lie where the next step's will."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        after, metrics = self.inner.train_step(state, images, labels, learning_rate)
        return after, self.struct(metrics)


@fault("proto-gradient-metrics-overwritten")
class _GradientMetricsOverwritten(_Buffered):
    """The metrics beside gradients lie where the next ones will."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        found, metrics = self.inner.gradients(state, images, labels)
        return found, self.struct(metrics)


@fault("proto-gradients-overwritten", origin="Tensor.grad that is written into, and handed out by Tensor.numpy()")
class _GradientsOverwritten(_Buffered):
    """Gradients lie where the next ones will."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        found, metrics = self.inner.gradients(state, images, labels)
        return {k: self.kept(k, v) for k, v in found.items()}, metrics


@fault("proto-evaluation-overwritten")
class _EvaluationOverwritten(_Buffered):
    """An evaluation's logits and rates lie where the next one's will."""

    def evaluate(self, state: Any, images: Values) -> Any:
        return self.struct(self.inner.evaluate(state, images))


@fault("proto-trace-overwritten")
class _TraceOverwritten(_Buffered):
    """A trace's values lie where the next one's will."""

    def trace(self, state: Any, images: Values, *, training: bool = False, labels: Values | None = None) -> Any:
        taps = self.inner.trace(state, images, training=training, labels=labels)
        return {layer: {k: self.kept((layer, k), v) for k, v in tap.items()} for layer, tap in taps.items()}


@fault("proto-dump-overwritten")
class _DumpOverwritten(_Buffered):
    """A dump's arrays lie where the next one's will."""

    def dump(self, state: Any) -> Any:
        return {k: self.kept(k, v) for k, v in self.inner.dump(state).items()}


# --- what was asked before ---------------------------------------------------------------------------


@fault("proto-evaluate-first-state", origin="parameters that a compiled function captured")
class _EvaluateFirstState(First):
    """evaluate() uses the parameters that it was first given."""

    def evaluate(self, state: Any, images: Values) -> Any:
        return self.inner.evaluate(self.first("state", dict(state)), images)


@fault("proto-evaluate-first-statistics")
class _EvaluateFirstStatistics(First):
    """evaluate() uses the running statistics that it was first given."""

    def evaluate(self, state: Any, images: Values) -> Any:
        kept = self.first("state", {k: v for k, v in state.items() if ".mean_" in k or ".var_" in k})
        return self.inner.evaluate(dict(state) | kept, images)


@fault("proto-gradients-first-sigma", origin="kernels that are composed once")
class _GradientsFirstSigma(First):
    """gradients() uses the singular values that it was first given."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        kept = self.first("state", {k: v for k, v in state.items() if ".sigma_" in k})
        return self.inner.gradients(dict(state) | kept, images, labels)


@fault("proto-step-first-slots")
class _StepFirstSlots(First):
    """train_step() starts each time from the slots that it was first given."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        kept = self.first("state", {k: v for k, v in state.items() if k.startswith("optimizer/") and k != STEP})
        return self.inner.train_step(dict(state) | kept, images, labels, learning_rate)


@fault("proto-step-first-rate", origin="a learning rate that jit took for a constant")
class _StepFirstRate(First):
    """train_step() uses the learning rate that it was first given."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        return self.inner.train_step(state, images, labels, self.first("rate", learning_rate))


@fault("proto-step-first-count")
class _StepFirstCount(First):
    """train_step() counts on from the counter that it was first given, whatever state it is given."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        count = self.first("count", int(state[STEP]))
        self.seen["count"] = count + 1
        return self.inner.train_step(dict(state) | {STEP: np.asarray(count)}, images, labels, learning_rate)


@fault("proto-evaluate-first-images")
class _EvaluateFirstImages(First):
    """evaluate() answers images of a shape that it has seen with the answer to those."""

    def evaluate(self, state: Any, images: Values) -> Any:
        return self.inner.evaluate(state, self.first(images.shape, images.copy()))


@fault("proto-gradients-first-labels")
class _GradientsFirstLabels(First):
    """gradients() and train_step() use the labels that they were first given for that many samples."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        return self.inner.gradients(state, images, self.first(labels.shape, labels.copy()))

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        return self.inner.train_step(state, images, self.first(labels.shape, labels.copy()), learning_rate)


@fault("proto-trace-first-mode", origin="a flag that a traced function captured")
class _TraceFirstMode(First):
    """trace() runs in the mode that it was first asked for."""

    def trace(self, state: Any, images: Values, *, training: bool = False, labels: Values | None = None) -> Any:
        return self.inner.trace(state, images, training=self.first("mode", training), labels=labels)


@fault("proto-batch-first-size", origin="a mean over the batch whose divisor was traced as a constant")
class _BatchFirstSize(First):
    """Gradients are divided by the number of samples that there were first."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        share = len(labels) / self.first("size", len(labels))
        found, metrics = self.inner.gradients(state, images, labels)
        return {k: v * share for k, v in found.items()}, metrics


@fault("proto-batch-loss-first-size")
class _BatchLossFirstSize(First):
    """The losses of a step are divided by the number of samples that there were first."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        share = len(labels) / self.first("size", len(labels))
        after, metrics = self.inner.train_step(state, images, labels, learning_rate)
        return after, msgspec.structs.replace(metrics, loss=np.asarray(metrics.loss * share))


@fault("proto-batch-padded", origin="static shapes: batches are padded to the largest one seen")
class _BatchPadded(First):
    """Statistics of a smaller batch than one before it count zeros for the samples that lack."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        most = self.seen["most"] = max(self.seen.get("most", 0), len(labels))
        share = len(labels) / most
        after, metrics = self.inner.train_step(state, images, labels, learning_rate)
        return {k: v * share if ".mean_" in k else v for k, v in after.items()}, metrics


@fault("proto-evaluate-stale", origin="weights that are folded into a kernel and not folded again after a step")
class _EvaluateStale(First):
    """evaluate() after a step uses what the state was before it."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        self.seen["before"] = dict(state)
        return self.inner.train_step(state, images, labels, learning_rate)

    def evaluate(self, state: Any, images: Values) -> Any:
        return self.inner.evaluate(self.seen.get("before", state), images)


@fault("proto-step-after-evaluation", origin="module.eval() without module.train() after it")
class _StepAfterEvaluation(First):
    """A step after an evaluation leaves the running statistics as they were."""

    def evaluate(self, state: Any, images: Values) -> Any:
        self.seen["evaluated"] = True
        return self.inner.evaluate(state, images)

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        kept = {k: v for k, v in state.items() if ".mean_" in k or ".var_" in k}
        after, metrics = self.inner.train_step(state, images, labels, learning_rate)
        return (dict(after) | kept if self.seen.get("evaluated") else after), metrics


@fault("proto-step-after-gradients", origin="gradients that are not set to zero before the next backward pass")
class _StepAfterGradients(First):
    """A step after gradients() adds those to its own."""

    def gradients(self, state: Any, images: Values, labels: Values) -> Any:
        found, metrics = self.inner.gradients(state, images, labels)
        self.seen["left"] = found
        return found, metrics

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> Any:
        after, metrics = self.inner.train_step(state, images, labels, learning_rate)
        left = self.seen.pop("left", {})
        return {k: v - learning_rate * left[k] if k in left else v for k, v in after.items()}, metrics
