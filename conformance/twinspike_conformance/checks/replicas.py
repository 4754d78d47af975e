"""Examples of networks whose batches can be split among ranks, and one whose steps no order of sums can change."""

from __future__ import annotations

import msgspec
import numpy as np

from twinspike.config import SGD, Factorization, Loss, Method, Neuron, Retract
from twinspike.network import Activation, AvgPool, Branch, Conv, GlobalPool, Linear, Network
from twinspike.parameters import STEP, State, layout
from twinspike.reference import step
from twinspike.setting import Setting
from twinspike_conformance.checks.base import Space

FEWEST = 4
"""Samples of a batch at least, so that two ranks differ in what they have."""


def over(space: Space, replicas: int) -> Space:
    """The space with batches that `replicas` divides; as it is for one device."""
    if replicas == 1:
        return space
    each = -(-FEWEST // replicas)
    buckets = tuple({"B": replicas * n} for n in (each, each + 1))
    return msgspec.structs.replace(space, buckets=buckets)


DYADIC = Network(
    name="dyadic",
    input_shape=(2, 4, 4),
    layers=(
        Conv(name="stem", input="input", out_channels=3, kernel=3, padding=1, part="stem"),
        Activation(name="stem.act", input="stem"),
        Conv(name="body", input="stem.act", out_channels=4, kernel=1),
        Activation(name="body.act", input="body"),
        AvgPool(name="pool", input="body.act", kernel=2, stride=2),
        GlobalPool(name="feature", input="pool"),
        Linear(name="head", input="feature", out_features=2),
    ),
    exits=(Branch(feature="feature", head="head"),),
)
"""No norm and no logarithm on the way to a gradient: with small whole numbers every result is one of few bits."""

METHOD = Method(
    time_steps=2,
    neuron=Neuron(decay=0.5, threshold=0.5, detach_reset=True),
    factorization=Factorization(scope="all_convs", rank=2, orthogonality=Retract(every=1000)),
    loss=Loss(alpha=1.0, beta=2.0**-4, pairs="none", feature_reduction="sum"),
)
"""The loss is the feature term alone, whose gradient is a difference of features."""

OPTIMIZER = SGD(momentum=0.5, weight_decay=2.0**-3, nesterov=True)
RATE = 2.0**-3


def exact_setting(replicas: int, seed: int) -> Setting:
    """A state of small numbers of few bits and a batch of four grey levels, of four samples a rank.

    Halves among the kernels put potentials inside of the surrogate's window.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    state: State = {}
    for entry in layout(DYADIC, METHOD, OPTIMIZER):
        whole = rng.integers(1, 4, entry.shape) / 2 if entry.kind == "sigma" else rng.integers(-1, 2, entry.shape)
        state[entry.name] = np.asarray(0, np.int64) if entry.name == STEP else np.asarray(whole, np.float64)
    samples = 4 * replicas
    images = rng.integers(0, 4, (samples, *DYADIC.input_shape)) / 4
    labels = rng.integers(0, DYADIC.classes, samples)
    return Setting(DYADIC, METHOD, OPTIMIZER, state, (images,), (labels,))


def exact_step(s: Setting) -> State | None:
    """The state after the step, if float64 holds every partial result of it; None if it does not.

    A format of eleven more bits shows it, which gives the same only where nothing was rounded to less.
    """
    found = []
    for form in (np.float64, np.longdouble):
        state = {name: value if value.dtype.kind == "i" else value.astype(form) for name, value in s.state.items()}
        with np.errstate(all="ignore"):
            after, _ = step.train_step(s.network, s.method, s.optimizer, state, s.images[0], s.labels[0], RATE)
        found.append(after)
    same = all(np.array_equal(found[0][name], found[1][name]) for name in found[0])
    return found[0] if same and np.finfo(np.longdouble).nmant > np.finfo(np.float64).nmant else None
