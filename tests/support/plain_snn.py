"""A plain spiking network: no factors, no teacher, and the spiking twin's last exit alone learns from labels (DIS-9)."""

from __future__ import annotations

import numpy as np

import twinspike as ts
from twinspike.backend import Session
from twinspike.parameters import initial_state

NET = ts.network("digits_cnn", width=2)
METHOD = ts.Method(
    time_steps=3,
    factorization=ts.Factorization(scope="none"),
    loss=ts.Loss(alpha=0.0, beta=0.0, pairs="none", supervised="snn_last"),
)


def influenced(session: Session, *, recompute: bool) -> list[str]:
    """What the artificial twin has a part in, which is nothing: its gradients that aren't 0, others that move with its values."""
    rng = np.random.default_rng(0)
    state = initial_state(NET, METHOD, ts.SGD(), seed=1)
    moved = {
        name: value + np.abs(rng.normal(size=value.shape)) if name.endswith("_ann") else value for name, value in state.items()
    }
    images, labels = rng.normal(size=(4, *NET.input_shape)), rng.integers(0, NET.classes, 4)
    program = session.program(NET, METHOD, ts.SGD(), recompute=recompute)
    one, other = (
        {name: np.asarray(g) for name, g in program.gradients(program.load(values), images, labels)[0].items()}
        for values in (state, moved)
    )
    assert one[f"{NET.exits[-1].head}.bias"].any()
    return [name for name in one if (one[name].any() if name.endswith("_ann") else not np.array_equal(one[name], other[name]))]
