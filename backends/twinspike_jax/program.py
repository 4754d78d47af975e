"""Program: a network with its method and optimizer as one training step, compiled whole or so that it answers soon.

The counter of steps stays on the host, where it decides on retractions without waiting for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]  # it ships no types
from jax import Array, lax
from jax.sharding import PartitionSpec
from numpy.typing import NDArray

from twinspike.backend import Evaluation, Metrics
from twinspike.checks import check_batch, check_images, check_rate
from twinspike.config import TWINS, Method, Optimizer, Penalty, Retract, Twin
from twinspike.network import INPUT, Network, infer_shapes
from twinspike.parameters import STEP, check_state, layer_and_part, layout, slots
from twinspike.replicas import check_same, digest
from twinspike_jax import factorization, losses
from twinspike_jax.network import Outputs, apply, ends, reduced_logits, total_penalty
from twinspike_jax.optimizer import decay_mask, domains, make_optimizer, project, read_slots, write_slots
from twinspike_jax.piecewise import Pieces
from twinspike_jax.precision import Policy, name_of
from twinspike_jax.replicas import AXIS, FIRST, SECOND, WHOLE, Ranks, at_work, average, of_first, on_host, total
from twinspike_jax.residuals import spares
from twinspike_jax.twin import Statistics, Twinned, constant_layers, run_twin
from twinspike_jax.weights import Params

Values = NDArray[Any]
_joint_loss = jax.jit(losses.joint_loss, static_argnames=("config", "replicas"))


class TrainState(NamedTuple):
    """Everything that a step reads and writes."""

    params: dict[str, Array]
    statistics: dict[str, Array]
    optimizer: Any
    """State of the optax transformation."""
    step: int
    """Optimizer steps taken, on the host."""


@final
class JaxProgram:
    """One network, method and optimizer on one device; `session.program` makes it."""

    def __init__(
        self,
        network: Network,
        method: Method,
        optimizer: Optimizer,
        *,
        casts: Policy,
        device: jax.Device,
        compiled: bool,
        recompute: bool = False,
        ranks: Ranks | None = None,
    ) -> None:
        self._network, self._method, self._optimizer = network, method, optimizer
        self._casts, self._device, self._ranks = casts, device, ranks
        self._axis: str | None = None if ranks is None else AXIS
        self._replicas = 1 if ranks is None else ranks.replicas
        self._form: dict[str, Any] = {"precision": name_of(casts), "spare": spares(casts, device.platform)}
        self._recompute = recompute
        self._layout = layout(network, method, optimizer)
        self._shapes = infer_shapes(network)
        self._domains = domains(network, method)
        self._transform = make_optimizer(optimizer, decay_mask(network, method, optimizer))
        orthogonality = method.factorization.orthogonality
        self._retraction = orthogonality if isinstance(orthogonality, Retract) else None

        def jit(function: Callable[..., Any], *donated: int, ins: Any = None, outs: Any = None) -> Callable[..., Any]:
            if ranks is not None and ins is not None:
                return ranks.mapped(function, ins, outs, *donated, compiled=compiled)
            if ranks is not None:
                return ranks.jit(function, *donated, compiled=compiled)
            return jax.jit(function, donate_argnums=donated) if compiled else Pieces(function, device)

        self._images = SECOND if network.event else FIRST
        values = self._split_values()
        given = WHOLE, WHOLE, self._images
        self._move = jit(self._move_by)
        self._differentiate = jit(self._differentiate_by, ins=(*given, FIRST), outs=WHOLE)
        self._update = jit(self._update_by, 0, 1, 2) if compiled else self._update_by
        self._retract = jit(self._retract_by, 0, ins=(WHOLE,), outs=WHOLE)
        self._evaluate = jit(self._evaluate_by)
        if ranks is not None:
            outs = {"logits_ann": SECOND, "logits_snn": SECOND, "spike_rates": WHOLE}
            shared = partial(self._evaluate_by, axis=AXIS)
            self._evaluate_shared = ranks.mapped(shared, given, outs, compiled=compiled, here=True)
        pulled = ((values[:2], WHOLE), values)
        self._run = {mode: jit(partial(self._run_by, mode), ins=given, outs=values) for mode in (False, True)}
        self._pull = {mode: jit(partial(self._pull_by, mode), ins=(*given, FIRST), outs=pulled) for mode in (False, True)}

    # --- state ---------------------------------------------------------------------------------------

    def load(self, values: Mapping[str, Values]) -> TrainState:
        """Put a state onto the device.

        Raises:
            SpecError: a name, shape or value does not fit.
        """
        entries = self._layout
        check_state(values, entries)
        if self._ranks is not None:
            check_same(self._ranks, digest(values), "state")
        with at_work(self._casts.storage, self._device, self._ranks):
            params = {e.name: self._put(values[e.name]) for e in entries if e.trained}
            statistics = {e.name: self._put(values[e.name]) for e in entries if e.kind == "statistic"}
            kept = {
                slot: {name: self._put(values[f"optimizer/{slot}/{name}"]) for name in params} for slot in slots(self._optimizer)
            }
            step = int(values[STEP])
            empty = jax.eval_shape(self._transform.init, params)
            count = self._put(np.asarray(step), "int32")
            return TrainState(params, statistics, write_slots(empty, kept, count), step)

    def dump(self, state: TrainState) -> dict[str, Values]:
        """The state as NumPy arrays under the specification's names."""
        found: dict[str, Any] = {**state.params, **state.statistics}
        for slot, tree in read_slots(self._optimizer, state.optimizer).items():
            found |= {f"optimizer/{slot}/{name}": value for name, value in tree.items()}
        with at_work(self._casts.storage, self._device, self._ranks):
            dumped: dict[str, Values] = {e.name: np.array(found[e.name]) for e in self._layout if e.name != STEP}
        return {**dumped, STEP: np.asarray(state.step, dtype=np.int64)}

    def _put(self, values: Values, dtype: str | None = None, split: PartitionSpec = WHOLE) -> Array:
        """A copy on the device, or as the ranks have it; copied before, since JAX may share the memory of what it is given."""
        own = np.array(values, dtype=dtype or self._casts.storage, order="C")
        if self._ranks is not None:
            return self._ranks.put(own, split)
        placed: Array = jax.device_put(own, self._device)
        return placed

    # --- training ------------------------------------------------------------------------------------

    def train_step(self, state: TrainState, images: Values, labels: Values, learning_rate: float) -> tuple[TrainState, Metrics]:
        """One optimizer step on one batch, and a retraction where due; does not wait for the device.

        Raises:
            SpecError: the batch or the learning rate does not fit.
        """
        check_batch(self._network, self._method, images, labels)
        check_rate(learning_rate)
        with at_work(self._casts.storage, self._device, self._ranks):
            batch = *self._batch(images, labels), self._put(np.asarray(learning_rate))
            params, statistics, slots_after, metrics = self._update(*state[:3], *batch)
            step = state.step + 1
            if self._retraction is not None and step % self._retraction.every == 0:
                params = self._retract(params)
            return TrainState(params, statistics, slots_after, step), Metrics(**metrics)

    def gradients(self, state: TrainState, images: Values, labels: Values) -> tuple[dict[str, Values], Metrics]:
        """Gradient of the loss for every trained entry, by name.

        Raises:
            SpecError: the batch does not fit.
        """
        check_batch(self._network, self._method, images, labels)
        with at_work(self._casts.storage, self._device, self._ranks):
            batch = self._batch(images, labels)
            found, _, metrics = self._differentiate(state.params, state.statistics, *batch)
            return {e.name: np.array(found[e.name]) for e in self._layout if e.trained}, Metrics(**metrics)

    def _batch(self, images: Values, labels: Values) -> tuple[Array, Array]:
        """A batch on the device, or this process's part of one on its devices."""
        if self._ranks is not None:
            self._ranks.check_shares(len(labels))
        return self._put(images, split=self._images), self._put(labels, "int32", FIRST)

    def _differentiate_by(self, params: Params, statistics: Statistics, images: Array, labels: Array) -> Any:
        """Gradients, statistics after the batch, and metrics."""

        def loss(params: Params) -> Any:
            given = self._network, self._method, params, statistics, images, True
            outputs, after = apply(*given, recompute=self._recompute, ranks=self._axis, **self._form)
            terms = _joint_loss(*outputs[:4], labels, config=self._method.loss, replicas=self._replicas)
            orthogonality = self._method.factorization.orthogonality
            penalty = jnp.zeros((), terms.loss.dtype)
            if isinstance(orthogonality, Penalty):
                penalty = orthogonality.weight * total_penalty(params)
                if self._axis is not None:  # it counts once
                    penalty = jnp.where(lax.axis_index(self._axis) == 0, penalty, 0.0)
                terms = terms._replace(loss=terms.loss + penalty)
            return terms.loss, (after, self._metrics(outputs, terms, penalty, labels))

        found, (after, metrics) = jax.grad(loss, has_aux=True)(params)
        after = average(after, self._axis if self._method.batch_norm.replicas == "local" else None)
        return total(found, self._axis), after, metrics

    def _metrics(self, outputs: Outputs, terms: losses.Terms, penalty: Array, labels: Array) -> dict[str, Array]:
        def correct(logits: Array) -> Array:
            return (logits.argmax(axis=-1) == labels).sum()

        found = {
            **terms._asdict(),
            "penalty": penalty,
            "correct_ann": correct(outputs.logits_ann[-1]),
            "correct_snn": correct(reduced_logits(self._method, outputs)[-1]),
            "spike_rate": self._neurons(outputs.spike_rates) / self._replicas,
        }
        summed: dict[str, Array] = total(found, self._axis)
        return summed

    def _neurons(self, rates: Array) -> Array:
        """Mean of the layers' spike rates by their numbers of neurons."""
        sizes = np.array([math.prod(self._shapes[name]) for name in self._network.activations], dtype=np.float64)
        return (rates * jnp.asarray(sizes / sizes.sum(), rates.dtype)).sum()

    def _update_by(
        self, params: Params, statistics: Statistics, kept: Any, images: Array, labels: Array, learning_rate: Array
    ) -> Any:
        found, statistics, metrics = self._differentiate(params, statistics, images, labels)
        params, kept = self._move(params, found, kept, learning_rate)
        return params, statistics, kept, metrics

    def _move_by(self, params: Params, found: Params, kept: Any, learning_rate: Array) -> Any:
        updates, kept = self._transform.update(found, kept, params, learning_rate=learning_rate)
        return project(optax.apply_updates(params, updates), self._domains), kept

    def _retract_by(self, params: dict[str, Array]) -> dict[str, Array]:
        """Clause ORT-3."""
        if self._retraction is None:
            return params
        after = dict(params)
        for name in params:
            layer, part = layer_and_part(name)
            if part == "U":
                u, v = name, f"{layer}.V"
                after[u], after[v] = factorization.retract(params[u], params[v], by=self._retraction.by)
                # decompositions of different processors round differently
                after[u], after[v] = of_first((after[u], after[v]), self._axis)
        return after

    # --- evaluation ----------------------------------------------------------------------------------

    def evaluate(self, state: TrainState, images: Values) -> Evaluation:
        """Both twins in evaluation mode.

        Raises:
            SpecError: the images don't fit.
        """
        check_images(self._network, self._method, images)
        with at_work(self._casts.storage, self._device, self._ranks):
            given = state.params, state.statistics
            if self._ranks is None:
                return Evaluation(**self._evaluate(*given, self._put(images)))
            samples = images.shape[int(self._network.event)]
            own = np.array(images, dtype=self._casts.storage, order="C")
            if samples % self._ranks.here.size == 0:
                placed = self._ranks.put(own, self._images, here=True)
                return Evaluation(**self._evaluate_shared(*self._ranks.nearby(given), placed))
            first = self._ranks.here.devices.flat[0]  # a last, smaller batch
            return Evaluation(**self._evaluate(*self._ranks.on_first(given), jax.device_put(own, first)))

    def _evaluate_by(self, params: Params, statistics: Statistics, images: Array, *, axis: str | None = None) -> dict[str, Array]:
        outputs, _ = apply(self._network, self._method, params, statistics, images, False, **self._form)
        return {
            "logits_ann": outputs.logits_ann,
            "logits_snn": reduced_logits(self._method, outputs),
            "spike_rates": average(outputs.spike_rates, axis),
        }

    def trace(
        self, state: TrainState, images: Values, *, training: bool = False, labels: Values | None = None
    ) -> dict[str, dict[str, Values]]:
        """Both twins' inner values by layer, and with labels the gradients towards them, as the protocol says.

        Raises:
            SpecError: the images or labels don't fit.
        """
        if labels is None:
            check_images(self._network, self._method, images)
        else:
            check_batch(self._network, self._method, images, labels)
        with at_work(self._casts.storage, self._device, self._ranks):
            if self._ranks is not None:
                self._ranks.check_shares(images.shape[int(self._network.event)])
            given = state.params, state.statistics, self._put(images, split=self._images)
            towards: tuple[Any, Any] | None = None
            by_name: dict[str, Array] = {}
            if labels is None:
                ann, snn, u = self._run[training](*given)
            else:
                (towards, by_name), (ann, snn, u) = self._pull[training](*given, self._put(labels, "int32", FIRST))
            constant = constant_layers(self._network)
            found: dict[str, dict[str, Values]] = {}
            for layer in self._network.layers:
                name, spiking = layer.name, self._first(layer.name, snn[layer.name])
                if name in constant:
                    spiking = np.stack([spiking] * self._method.time_steps)
                found[name] = {"ann": self._first(name, ann[name]), "snn": spiking}
                if name in u:
                    found[name]["u"] = self._first(name, u[name])
                if towards is not None:
                    g_ann, g_snn = (self._first(name, g[name]) for g in towards)
                    found[name] |= {"g_ann": g_ann, "g_snn": g_snn[None] if name in constant else g_snn}
            for name, g in by_name.items():
                owner, part = layer_and_part(name)
                found[owner][f"d_{part}"] = _host(g)
            return found

    def _first(self, name: str, value: Array) -> Values:
        """A layer's value on the host, maps with C before H and W again."""
        return np.moveaxis(_host(value), -1, -3) if len(self._shapes[name]) == 3 else _host(value)

    def _twin(self, twin: Twin, training: bool, params: Params, statistics: Statistics, images: Array, probes: Any) -> Twinned:
        given = (self._network, self._method, twin, params, statistics, images, training, self._casts)
        return run_twin(*given, trace=True, probes=probes, ranks=self._axis)

    def _run_by(self, training: bool, params: Params, statistics: Statistics, images: Array) -> Any:
        ann, snn = (self._twin(twin, training, params, statistics, images, None) for twin in TWINS)
        return ann.values, snn.values, snn.potentials

    def _pull_by(self, training: bool, params: Params, statistics: Statistics, images: Array, labels: Array) -> Any:
        """Gradients of the loss towards every layer's output, of both twins, and towards parameters; and the values."""

        def loss(probes: Any, params: Params) -> Any:
            ann, snn = (
                self._twin(twin, training, params, statistics, images, zeros) for twin, zeros in zip(TWINS, probes, strict=True)
            )
            seen = ends(self._network, self._method, params, ann, snn, self._casts)
            terms = _joint_loss(*seen, labels, config=self._method.loss, replicas=self._replicas)
            return terms.loss, (ann.values, snn.values, snn.potentials)

        shapes = jax.eval_shape(partial(self._run_by, training), params, statistics, images)[:2]
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        (towards, by_name), seen = jax.grad(loss, argnums=(0, 1), has_aux=True)(zeros, params)
        return (towards, total(by_name, self._axis)), seen

    def _split_values(self) -> tuple[Any, Any, Any]:
        """How values of the artificial twin, of the spiking twin and potentials are split among ranks, by layer."""
        names = [INPUT, *(layer.name for layer in self._network.layers)]
        constant = constant_layers(self._network)
        ann: dict[str, PartitionSpec] = dict.fromkeys(names, FIRST)
        return (
            ann,
            {name: FIRST if name in constant else SECOND for name in names},
            dict.fromkeys(self._network.activations, SECOND),
        )


def _host(value: Array) -> Values:
    return on_host(value.astype(jnp.float32) if value.dtype == jnp.bfloat16 else value)
