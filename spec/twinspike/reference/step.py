"""One training step, evaluation and inspection of the joint network, state in and state out (clauses OPT-*, ORT-3)."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from twinspike.backend import Evaluation, Metrics
from twinspike.config import Free, Method, Optimizer, Retract
from twinspike.network import Network
from twinspike.parameters import STEP, State, decays, domain, layer_and_part, layout, slots
from twinspike.reference import Array, factorization
from twinspike.reference.layers import readout
from twinspike.reference.losses import Labels, Terms
from twinspike.reference.network import Gradients, Tape, Values, backward, factors, forward, loss
from twinspike.reference.optimizer import optimizer_step, projected


def gradients(
    network: Network, method: Method, state: Values, images: Array, labels: Labels, replicas: int = 1
) -> tuple[Gradients, dict[str, Array], Metrics]:
    """Gradients of a batch in training mode, running statistics after it, and what is reported.

    Args:
        network: the graph.
        method: the options.
        state: every parameter and running statistic, by name.
        images: (B, C, H, W), or (T, B, C, H, W) for event networks.
        labels: (B,), in [0, K).
        replicas: N, ranks that the batch is split among (clause DEV-4).

    Returns:
        Gradient of every trained entry of `parameters.layout`, by name; the new running statistics, by
        name; the metrics.
    """
    tape = forward(network, method, state, images, training=True, replicas=replicas)
    terms, penalty = loss(network, method, state, tape, labels)
    by_name, _ = backward(network, method, state, tape, labels)
    statistics = tape.ann.statistics | tape.snn.statistics
    return by_name, statistics, _metrics(network, method, tape, labels, terms, penalty)


def train_step(
    network: Network,
    method: Method,
    optimizer: Optimizer,
    state: Values,
    images: Array,
    labels: Labels,
    learning_rate: float,
    replicas: int = 1,
) -> tuple[State, Metrics]:
    """The state after one optimizer step, and a retraction where due (clauses OPT-1 to OPT-8, ORT-3).

    Args:
        network: the graph.
        method: the options.
        optimizer: its form and constants.
        state: everything that `parameters.layout` names, slots and counter included; left as it is.
        images: as in `gradients`.
        labels: likewise.
        learning_rate: of this step, >= 0.
        replicas: as in `gradients`.
    """
    by_name, statistics, metrics = gradients(network, method, state, images, labels, replicas)
    step = int(state[STEP]) + 1
    after: State = {name: value.copy() for name, value in state.items()}
    after |= statistics
    after[STEP] = np.asarray(step, dtype=np.int64)
    for entry in layout(network, method, optimizer):
        if not entry.trained:
            continue
        kept = {slot: state[f"optimizer/{slot}/{entry.name}"] for slot in slots(optimizer)}
        p, moved = optimizer_step(
            optimizer, state[entry.name], by_name[entry.name], learning_rate, step, kept, decays=decays(entry, optimizer)
        )
        after[entry.name] = projected(p, domain(entry, method))
        after |= {f"optimizer/{slot}/{entry.name}": value for slot, value in moved.items()}
    orthogonality = method.factorization.orthogonality
    if isinstance(orthogonality, Retract) and step % orthogonality.every == 0:
        for name, (u, v) in factors(network, method, after).items():
            after[f"{name}.U"], after[f"{name}.V"] = factorization.retract(orthogonality.by, u, v)
    return after, metrics


def evaluate(network: Network, method: Method, state: Values, images: Array) -> Evaluation:
    """Both twins in evaluation mode: logits reduced over time, and the spike rate of each activation layer."""
    tape = forward(network, method, state, images, training=False)
    heads = [exit_.head for exit_ in network.exits]
    return Evaluation(
        logits_ann=np.stack([tape.ann.outputs[head][0] for head in heads]),
        logits_snn=np.stack([readout(tape.snn.outputs[head], method.readout) for head in heads]),
        spike_rates=np.array([tape.snn.traces[name].s.mean() for name in network.activations]),
    )


def trace(
    network: Network, method: Method, state: Values, images: Array, *, training: bool = False, labels: Labels | None = None
) -> dict[str, dict[str, Array]]:
    """Both twins' inner values by layer, and with labels the gradients of the loss towards them.

    Returns:
        Layer -> `ann` (B, ...) and `snn` (T, B, ...), its outputs; for activation layers `u` (T, B, ...),
        the potential before reset; with labels `g_ann` and `g_snn`, gradients shaped like the outputs,
        and `d_X` of each parameter X of the layer, without the gradient of an orthogonality penalty.
    """
    tape = forward(network, method, state, images, training=training)
    taps = {layer.name: {"ann": tape.ann.outputs[layer.name][0], "snn": tape.snn.outputs[layer.name]} for layer in network.layers}
    for name, neurons in tape.snn.traces.items():
        taps[name]["u"] = neurons.u
    if labels is not None:
        by_name, towards = backward(network, _unpenalized(method), state, tape, labels)
        for name, tap in taps.items():
            tap |= {"g_ann": towards["ann"][name][0], "g_snn": towards["snn"][name]}
        for name, g in by_name.items():
            layer, part = layer_and_part(name)
            taps[layer][f"d_{part}"] = g
    return taps


def _unpenalized(method: Method) -> Method:
    """The method without an orthogonality penalty."""
    return replace(method, factorization=replace(method.factorization, orthogonality=Free()))


def _metrics(network: Network, method: Method, tape: Tape, labels: Labels, terms: Terms, penalty: Array) -> Metrics:
    head = network.exits[-1].head
    reduced = readout(tape.snn.outputs[head], method.readout)
    spikes = [neurons.s for neurons in tape.snn.traces.values()]
    return Metrics(
        **terms._asdict(),
        penalty=penalty,
        correct_ann=_correct(tape.ann.outputs[head][0], labels),
        correct_snn=_correct(reduced, labels),
        spike_rate=np.asarray(sum(s.sum() for s in spikes) / max(1, sum(s.size for s in spikes))),
    )


def _correct(logits: Array, labels: Labels) -> NDArray[np.int64]:
    """Samples whose largest logit, the first of equals, is the label's (clause OUT-3)."""
    return np.asarray((logits.argmax(axis=-1) == labels).sum())
