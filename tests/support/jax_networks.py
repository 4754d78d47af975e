"""A small network, and batches for it, that tests of the JAX backend share."""

from __future__ import annotations

import numpy as np

from twinspike.network import Activation, Add, AvgPool, Branch, Conv, GlobalPool, Linear, Network, Norm


def small(event=False):
    """Two exits; a constant shortcut joins the spikes, and a hidden layer fires before the last head."""
    layers = (
        Conv(name="stem", input="input", out_channels=3, kernel=3, padding=1, part="stem"),
        Norm(name="stem.norm", input="stem"),
        Activation(name="one", input="stem.norm"),
        Conv(name="body", input="one", out_channels=4, kernel=3, stride=2, padding=1),
        Norm(name="body.norm", input="body"),
        Conv(name="short", input="input", out_channels=4, kernel=1, stride=2),
        Norm(name="short.norm", input="short"),
        Add(name="sum", input="short.norm", other="body.norm"),
        Activation(name="two", input="sum"),
        GlobalPool(name="f1", input="two"),
        Linear(name="h1", input="f1", out_features=3),
        AvgPool(name="pool", input="two", kernel=2, stride=2),
        GlobalPool(name="f2", input="pool"),
        Linear(name="hidden", input="f2", out_features=5),
        Activation(name="three", input="hidden"),
        Linear(name="h2", input="three", out_features=3),
    )
    exits = (Branch(feature="f1", head="h1"), Branch(feature="f2", head="h2"))
    return Network(name="small", input_shape=(2, 8, 8), event=event, layers=layers, exits=exits)


SMALL = small()


def batch(network, method, size=5, seed=0):
    rng = np.random.default_rng(seed)
    lead = (method.time_steps,) if network.event else ()
    return rng.normal(size=(*lead, size, *network.input_shape)), rng.integers(0, network.classes, size)
