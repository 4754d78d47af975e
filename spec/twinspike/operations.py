"""The operations table: one row per operation, from which conformance generates its tests.

A row names what goes in and out, what is differentiable, the reference's forward and adjoint, and the
clauses that the operation fulfils. Add a row and every backend is asked for it.

Dimension letters: T time, B batch, C channels, H W map, K classes, N exits, S slices of time that the
loss sees (1 or T), O I out and in, F features, p kernel positions, m n rows and columns, r rank;
`*d` any number of axes, `""` a scalar. A trailing `?` marks an input that may be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.config import BatchNorm, Config, Factorization, Loss, Neuron, Optimizer, Retract
from twinspike.errors import refuse
from twinspike.reference import rows

Arrays = dict[str, NDArray[np.generic]]
Forward = Callable[[Any, Mapping[str, NDArray[np.generic]]], Arrays]
Adjoint = Callable[[Any, Mapping[str, NDArray[np.generic]], Mapping[str, NDArray[np.generic]]], Arrays]


class Composition(Config, frozen=True, kw_only=True):
    """Config of `compose`: the factorization and the canonical shape of the kernel that comes out."""

    factorization: Factorization = Factorization()
    kernel_shape: tuple[int, ...]


class Convolution(Config, frozen=True, kw_only=True):
    """Config of `conv2d`."""

    stride: int = 1
    padding: int = 0


class Pooling(Config, frozen=True, kw_only=True):
    """Config of `avg_pool`."""

    kernel: int
    stride: int


class Readout(Config, frozen=True, kw_only=True):
    """Config of `readout`."""

    reduction: Literal["sum", "mean"] = "sum"


class Nothing(Config, frozen=True, kw_only=True):
    """Config of operations without options."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table."""

    name: str
    config: Any
    """Type of its config (a union for the optimizers)."""
    inputs: dict[str, str]
    """Input -> dimensions."""
    outputs: dict[str, str]
    differentiable: tuple[str, ...] = ()
    """Inputs that get a gradient."""
    cotangents: tuple[str, ...] = ()
    """Outputs whose gradient may come in; the others are for inspection and end the graph."""
    exactness: Literal["exact", "rounded", "certified"]
    """exact: on dyadic data within the bit budget, forward and backward agree bit for bit.
    rounded: roots, exponentials or divisions make it a matter of bounds. certified: not unique; its
    properties are checked."""
    forward: Forward
    adjoint: Adjoint | None = None
    clauses: tuple[str, ...]


TABLE: tuple[Operation, ...] = (
    Operation(
        name="lif",
        config=Neuron,
        inputs={"x": "T B C *d", "v": "B C *d ?", "decay": "C or () ?", "threshold": "C or () ?"},
        outputs={"s": "T B C *d", "u": "T B C *d", "v": "B C *d"},
        differentiable=("x", "v", "decay", "threshold"),
        cotangents=("s", "v"),
        exactness="exact",
        forward=rows.lif,
        adjoint=rows.lif_adjoint,
        clauses=tuple(f"LIF-{i}" for i in range(1, 12)),
    ),
    Operation(
        name="spike",
        config=Neuron,
        inputs={"u": "*d"},
        outputs={"s": "*d"},
        differentiable=("u",),
        cotangents=("s",),
        exactness="exact",
        forward=rows.spike,
        adjoint=rows.spike_adjoint,
        clauses=("LIF-2", *(f"SUR-{i}" for i in range(1, 8))),
    ),
    Operation(
        name="relu",
        config=Nothing,
        inputs={"x": "*d"},
        outputs={"y": "*d"},
        differentiable=("x",),
        cotangents=("y",),
        exactness="exact",
        forward=rows.relu,
        adjoint=rows.relu_adjoint,
        clauses=("LAY-4",),
    ),
    Operation(
        name="factorize",
        config=Factorization,
        inputs={"kernel": "O I kh kw"},
        outputs={"U": "*p m r", "sigma": "*p r", "V": "*p r n"},
        exactness="certified",
        forward=rows.factorize,
        clauses=("FAC-2", "FAC-3", "FAC-5"),
    ),
    Operation(
        name="compose",
        config=Composition,
        inputs={"U": "*p m r", "sigma": "*p r", "V": "*p r n"},
        outputs={"kernel": "O I kh kw"},
        differentiable=("U", "sigma", "V"),
        cotangents=("kernel",),
        exactness="exact",
        forward=rows.compose,
        adjoint=rows.compose_adjoint,
        clauses=("FAC-2", "FAC-6"),
    ),
    Operation(
        name="penalty",
        config=Nothing,
        inputs={"U": "*p m r", "V": "*p r n"},
        outputs={"loss": ""},
        differentiable=("U", "V"),
        cotangents=("loss",),
        exactness="exact",
        forward=rows.penalty,
        adjoint=rows.penalty_adjoint,
        clauses=("ORT-2",),
    ),
    Operation(
        name="retract",
        config=Retract,
        inputs={"U": "*p m r", "V": "*p r n"},
        outputs={"U": "*p m r", "V": "*p r n"},
        exactness="certified",
        forward=rows.retract,
        clauses=("ORT-3",),
    ),
    Operation(
        name="conv2d",
        config=Convolution,
        inputs={"x": "B I H W", "kernel": "O I kh kw"},
        outputs={"y": "B O H' W'"},
        differentiable=("x", "kernel"),
        cotangents=("y",),
        exactness="exact",
        forward=rows.conv2d,
        adjoint=rows.conv2d_adjoint,
        clauses=("LAY-1",),
    ),
    Operation(
        name="avg_pool",
        config=Pooling,
        inputs={"x": "B C H W"},
        outputs={"y": "B C H' W'"},
        differentiable=("x",),
        cotangents=("y",),
        exactness="exact",
        forward=rows.avg_pool,
        adjoint=rows.avg_pool_adjoint,
        clauses=("LAY-2",),
    ),
    Operation(
        name="global_pool",
        config=Nothing,
        inputs={"x": "B C H W"},
        outputs={"y": "B C"},
        differentiable=("x",),
        cotangents=("y",),
        exactness="exact",
        forward=rows.global_pool,
        adjoint=rows.global_pool_adjoint,
        clauses=("LAY-2",),
    ),
    Operation(
        name="linear",
        config=Nothing,
        inputs={"x": "B I", "weight": "O I", "bias": "O"},
        outputs={"y": "B O"},
        differentiable=("x", "weight", "bias"),
        cotangents=("y",),
        exactness="exact",
        forward=rows.linear,
        adjoint=rows.linear_adjoint,
        clauses=("LAY-3",),
    ),
    Operation(
        name="batch_norm_train",
        config=BatchNorm,
        inputs={"x": "T B C *d", "gamma": "C", "beta": "C", "mean": "C", "var": "C"},
        outputs={"y": "T B C *d", "mean": "C", "var": "C"},
        differentiable=("x", "gamma", "beta"),
        cotangents=("y",),
        exactness="rounded",
        forward=rows.batch_norm_train,
        adjoint=rows.batch_norm_train_adjoint,
        clauses=("BN-1", "BN-2", "BN-3", "BN-4"),
    ),
    Operation(
        name="batch_norm_eval",
        config=BatchNorm,
        inputs={"x": "T B C *d", "gamma": "C", "beta": "C", "mean": "C", "var": "C"},
        outputs={"y": "T B C *d"},
        differentiable=("x", "gamma", "beta"),
        cotangents=("y",),
        exactness="rounded",
        forward=rows.batch_norm_eval,
        adjoint=rows.batch_norm_eval_adjoint,
        clauses=("BN-5",),
    ),
    Operation(
        name="readout",
        config=Readout,
        inputs={"x": "T B F"},
        outputs={"y": "B F"},
        differentiable=("x",),
        cotangents=("y",),
        exactness="exact",
        forward=rows.readout,
        adjoint=rows.readout_adjoint,
        clauses=("OUT-1", "OUT-2"),
    ),
    Operation(
        name="cross_entropy",
        config=Nothing,
        inputs={"logits": "B K", "labels": "B"},
        outputs={"loss": ""},
        differentiable=("logits",),
        cotangents=("loss",),
        exactness="rounded",
        forward=rows.cross_entropy,
        adjoint=rows.cross_entropy_adjoint,
        clauses=("DIS-2",),
    ),
    Operation(
        name="distillation",
        config=Loss,
        inputs={"student": "B K", "teacher": "B K"},
        outputs={"loss": ""},
        differentiable=("student", "teacher"),
        cotangents=("loss",),
        exactness="rounded",
        forward=rows.distillation,
        adjoint=rows.distillation_adjoint,
        clauses=("DIS-3", "DIS-6"),
    ),
    Operation(
        name="feature_loss",
        config=Loss,
        inputs={"snn": "B F", "ann": "B F"},
        outputs={"loss": ""},
        differentiable=("snn", "ann"),
        cotangents=("loss",),
        exactness="exact",
        forward=rows.feature_loss,
        adjoint=rows.feature_loss_adjoint,
        clauses=("DIS-5", "DIS-6"),
    ),
    Operation(
        name="joint_loss",
        config=Loss,
        inputs={
            "logits_ann": "N B K",
            "logits_snn": "S N B K",
            "features_ann": "N B F",
            "features_snn": "N B F",
            "labels": "B",
        },
        outputs={"loss": "", "cross_entropy_ann": "", "cross_entropy_snn": "", "distillation": "", "feature": ""},
        differentiable=("logits_ann", "logits_snn", "features_ann", "features_snn"),
        cotangents=("loss",),
        exactness="rounded",
        forward=rows.joint_loss,
        adjoint=rows.joint_loss_adjoint,
        clauses=("DIS-1", "DIS-4", "DIS-6", "DIS-8", "DIS-9", "DIS-10", "DIS-11", "DIS-12", "DIS-13"),
    ),
    Operation(
        name="optimizer_step",
        config=Optimizer,
        inputs={"p": "*d", "g": "*d", "lr": "", "step": "", "momentum": "*d ?", "m": "*d ?", "v": "*d ?"},
        outputs={"p": "*d", "momentum": "*d ?", "m": "*d ?", "v": "*d ?"},
        exactness="rounded",
        forward=rows.optimizer_step,
        clauses=("OPT-1", "OPT-5", "OPT-6", "OPT-7"),
    ),
)

OPERATIONS: dict[str, Operation] = {row.name: row for row in TABLE}


def operation(name: str) -> Operation:
    """The row of that name; SpecError if there is none."""
    if name not in OPERATIONS:
        raise refuse("operation", expected=f"one of {', '.join(OPERATIONS)}", got=name)
    return OPERATIONS[name]
