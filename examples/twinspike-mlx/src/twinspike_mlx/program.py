"""One network with a method and an optimizer, ready to train: state in, state out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, final

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Evaluation, Metrics
from twinspike.checks import check_batch, check_images, check_rate
from twinspike.config import Method, Optimizer, Penalty, Retract
from twinspike.network import INPUT, Network, infer_shapes
from twinspike.parameters import STEP, check_state, decays, domain, layer_and_part, layout, slots
from twinspike_mlx import factorization, losses
from twinspike_mlx.arrays import on_cpu, to_mlx, to_numpy
from twinspike_mlx.network import Twinned, exits, joint_loss, reduced_logits, run_twins, total_penalty
from twinspike_mlx.optimizer import optimizer_step

Values = NDArray[Any]


class TrainState(NamedTuple):
    """Everything that a step reads and writes, by the specification's names."""

    params: dict[str, mx.array]
    statistics: dict[str, mx.array]
    slots: dict[str, dict[str, mx.array]]
    """Parameter -> slot -> array."""
    step: int


@final
class Program:
    """See the module; `Session.program` makes it."""

    def __init__(self, network: Network, method: Method, optimizer: Optimizer) -> None:
        self._network, self._method, self._optimizer = network, method, optimizer
        self._layout = layout(network, method, optimizer)
        self._trained = [entry for entry in self._layout if entry.trained]
        shapes = infer_shapes(network)
        self._neurons = {name: math.prod(shapes[name]) for name in network.activations}

    # --- state ---------------------------------------------------------------------------------------

    @on_cpu
    def load(self, values: Mapping[str, Values]) -> TrainState:
        """Put a state onto the device; SpecError if a name, shape or value does not fit."""
        check_state(values, self._layout)
        kept = {e.name: {s: to_mlx(values[f"optimizer/{s}/{e.name}"]) for s in slots(self._optimizer)} for e in self._trained}
        return TrainState(
            {entry.name: to_mlx(values[entry.name]) for entry in self._trained},
            {entry.name: to_mlx(values[entry.name]) for entry in self._layout if entry.kind == "statistic"},
            kept,
            int(values[STEP]),
        )

    @on_cpu
    def dump(self, state: TrainState) -> dict[str, Values]:
        """The state as NumPy arrays, floats in float32."""
        found: dict[str, Any] = {**state.params, **state.statistics}
        found |= {f"optimizer/{slot}/{name}": value for name, kept in state.slots.items() for slot, value in kept.items()}
        dumped = {entry.name: to_numpy(found[entry.name]) for entry in self._layout if entry.name != STEP}
        return {**dumped, STEP: np.asarray(state.step, np.int64)}

    # --- training ------------------------------------------------------------------------------------

    @on_cpu
    def train_step(self, state: TrainState, images: Values, labels: Values, learning_rate: float) -> tuple[TrainState, Metrics]:
        """One optimizer step on one batch, and a retraction where due; SpecError if batch or rate don't fit."""
        check_batch(self._network, self._method, images, labels)
        check_rate(learning_rate)
        gradients, statistics, metrics = self._gradients(state, images, labels)
        step, params, kept = state.step + 1, {}, {}
        for entry in self._trained:
            name, within = entry.name, domain(entry, self._method)
            p, kept[name] = optimizer_step(
                state.params[name], gradients[name], state.slots[name],
                config=self._optimizer, rate=learning_rate, step=step, decays=decays(entry, self._optimizer),
            )  # fmt: skip
            params[name] = p if within is None else mx.clip(p, within[0], None if math.isinf(within[1]) else within[1])
        orthogonality = self._method.factorization.orthogonality
        if isinstance(orthogonality, Retract) and step % orthogonality.every == 0:
            for u in [name for name in params if layer_and_part(name)[1] == "U"]:
                v = f"{layer_and_part(u)[0]}.V"
                params[u], params[v] = factorization.retract(params[u], params[v], by=orthogonality.by)
        mx.eval(params, statistics, kept, metrics)  # MLX is lazy: else the graph of a step would hold the one before it
        return TrainState(params, {**state.statistics, **statistics}, kept, step), Metrics(**metrics)

    @on_cpu
    def gradients(self, state: TrainState, images: Values, labels: Values) -> tuple[dict[str, Values], Metrics]:
        """Gradient of the loss for every trained entry, by name; SpecError if the batch does not fit."""
        check_batch(self._network, self._method, images, labels)
        gradients, _, metrics = self._gradients(state, images, labels)
        return {entry.name: to_numpy(gradients[entry.name]) for entry in self._trained}, Metrics(**metrics)

    def _gradients(self, state: TrainState, images: Values, labels: Values) -> tuple[Any, dict[str, mx.array], Any]:
        """Gradients, statistics after the batch, and metrics."""
        x, y = to_mlx(images), to_mlx(labels)

        def loss(params: dict[str, mx.array]) -> Any:
            ann, snn = run_twins(self._network, self._method, params, state.statistics, x, True)
            terms = joint_loss(self._network, self._method, ann, snn, y)
            penalty = mx.zeros(())
            if isinstance(self._method.factorization.orthogonality, Penalty):
                weight = self._method.factorization.orthogonality.weight
                penalty = weight * total_penalty(self._network, self._method, params)
            total = terms.loss + penalty
            return total, ann.statistics | snn.statistics, self._metrics(ann, snn, terms, total, penalty, y)

        (_, statistics, metrics), found = mx.value_and_grad(loss)(state.params)
        return found, statistics, metrics

    def _metrics(
        self, ann: Twinned, snn: Twinned, terms: losses.Terms, total: mx.array, penalty: mx.array, labels: mx.array
    ) -> dict[str, mx.array]:
        ends = exits(self._network, self._method, ann, snn)
        logits = {"ann": ends.logits_ann[-1], "snn": reduced_logits(self._method, ends)[-1]}
        spikes = sum((snn.values[name].sum() for name in self._neurons), mx.zeros(()))
        count = sum(snn.values[name].size for name in self._neurons)
        return {
            **terms._asdict(),
            "loss": total,
            "penalty": penalty,
            **{f"correct_{twin}": (mx.argmax(z, axis=-1) == labels).sum() for twin, z in logits.items()},
            "spike_rate": spikes / max(1, count),
        }

    # --- evaluation ----------------------------------------------------------------------------------

    @on_cpu
    def evaluate(self, state: TrainState, images: Values) -> Evaluation:
        """Both twins in evaluation mode; SpecError if the images don't fit."""
        check_images(self._network, self._method, images)
        ann, snn = run_twins(self._network, self._method, state.params, state.statistics, to_mlx(images), False)
        ends = exits(self._network, self._method, ann, snn)
        rates = mx.stack([snn.values[name].sum() / snn.values[name].size for name in self._neurons])
        found = ends.logits_ann, reduced_logits(self._method, ends), rates
        mx.eval(found)
        return Evaluation(logits_ann=found[0], logits_snn=found[1], spike_rates=found[2])

    @on_cpu
    def trace(
        self, state: TrainState, images: Values, *, training: bool = False, labels: Values | None = None
    ) -> dict[str, dict[str, Values]]:
        """Both twins' inner values by layer, and with labels the gradients towards them, as the protocol says."""
        if labels is None:
            check_images(self._network, self._method, images)
        else:
            check_batch(self._network, self._method, images, labels)
        x, given = to_mlx(images), (self._network, self._method)

        def run(params: Any, probes: Any) -> tuple[Twinned, Twinned]:
            return run_twins(*given, params, state.statistics, x, training, probes)

        towards: Any = None
        if labels is None:
            ann, snn = run(state.params, (None, None))
        else:
            y = to_mlx(labels)
            zeros = tuple(
                {k: mx.zeros_like(v) for k, v in twin.values.items() if k != INPUT} for twin in run(state.params, (None, None))
            )

            def loss(params: Any, probes: Any) -> Any:
                twins = run(params, probes)
                return joint_loss(*given, *twins, y).loss, twins

            (_, (ann, snn)), (by_name, towards) = mx.value_and_grad(loss, argnums=(0, 1))(state.params, zeros)
        found = {}
        for name in (layer.name for layer in self._network.layers):
            found[name] = {"ann": to_numpy(ann[0][name][0]), "snn": to_numpy(snn[0][name])}
            if name in snn[1]:
                found[name]["u"] = to_numpy(snn[1][name])
            if towards is not None:
                found[name] |= {"g_ann": to_numpy(towards[0][name][0]), "g_snn": to_numpy(towards[1][name])}
        if towards is not None:
            for name, g in by_name.items():
                layer, part = layer_and_part(name)
                found[layer][f"d_{part}"] = to_numpy(g)
        return found
