"""Every option of every config, with values that it may be changed to: an option that changes nothing was not read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from twinspike import config as configs
from twinspike import operations
from twinspike.config import Config, Factorization, Free, Loss, Neuron, Penalty, Rectangle, Retract, Triangle
from twinspike.errors import SpecError

_WIDTH: dict[str, tuple[Any, ...]] = {"width": (0.5, 1.0)}
_SLOPE: dict[str, tuple[Any, ...]] = {"slope": (1.0, 4.0)}
_ADAPTIVE: dict[str, tuple[Any, ...]] = {
    "beta1": (0.5, 0.75),
    "beta2": (0.5, 0.875),
    "eps": (0.5, 2.0),
    "weight_decay": (0.0, 0.5),
    "decay_scope": ("all", "no_norm_bias"),
}

ALTERNATIVES: dict[type[Config], dict[str, tuple[Any, ...]]] = {
    configs.Rectangle: _WIDTH,
    configs.Triangle: _WIDTH,
    configs.Sigmoid: _SLOPE,
    configs.Arctan: _SLOPE,
    configs.FastSigmoid: _SLOPE,
    configs.Tanh: _SLOPE,
    Neuron: {
        "decay": (0.5, 0.25),
        "threshold": (0.5, 1.0),
        "surrogate": (Rectangle(width=1.0), Rectangle(width=0.5), Triangle(width=1.0)),
        "reset": ("hard", "soft"),
        "v_reset": (0.0, -0.25),
        "detach_reset": (False, True),
        "decay_input": (False, True),
        "decay_scope": ("constant", "layer", "channel"),
        "threshold_scope": ("constant", "layer", "channel"),
    },
    Free: {},
    Penalty: {"weight": (0.125, 0.5)},
    Retract: {"every": (1, 2), "by": ("polar", "qr")},
    Factorization: {
        "scope": ("all_convs", "no_stem", "none"),
        "matricize": ("per_position", "out_by_rest"),
        "rank": ("full", 2, 1),
        "orthogonality": (Free(), Penalty(weight=0.125), Retract(every=1)),
    },
    configs.BatchNorm: {
        "time": ("per_step", "folded"),
        "momentum": (0.25, 0.75),
        "eps": (0.5, 2.0),
        "gamma_init": ("one", "threshold"),
        "replicas": ("synchronized", "local"),
    },
    Loss: {
        "alpha": (0.25, 1.0),
        "beta": (0.5, 0.25),
        "temperature": (1.0, 3.0),
        "form": ("ce", "kl"),
        "pairs": ("joint", "none", ("snn1<-ann1", "ann1<-snn2*2")),
        "supervised": ("all", "last", ("ann1", "snn1*0.5")),
        "feature_reduction": ("sum", "batch_mean", "mean"),
        "detach_teacher": (True, False),
        "isolate_ann": (False, True),
        "per_step": (False, True),
        "label_smoothing": (0.0, 0.25),
        "teacher_time": ("step", "mean"),
        "mse_weight": (0.0, 0.25),
        "mse_target": (1.0, -2.0),
    },
    configs.Method: {"time_steps": (2, 3), "readout": ("sum", "mean"), "linear_init": ("uniform", "fan_out")},
    configs.SGD: {
        "momentum": (0.5, 0.75),
        "nesterov": (False, True),
        "weight_decay": (0.0, 0.5),
        "decay_scope": ("all", "no_norm_bias"),
    },
    configs.Adam: _ADAPTIVE,
    configs.AdamW: _ADAPTIVE,
    operations.Composition: {},
    operations.Convolution: {"stride": (1, 2), "padding": (0, 1)},
    operations.Pooling: {"kernel": (1, 2), "stride": (1, 2)},
    operations.Readout: {"reduction": ("sum", "mean")},
    operations.Nothing: {},
}
"""Config -> option -> values that it is changed to."""

PARTS: dict[type[Config], tuple[str, ...]] = {
    Neuron: ("surrogate",),
    Factorization: ("orthogonality",),
    configs.Method: ("neuron", "factorization", "batch_norm", "loss"),
    operations.Composition: ("factorization", "kernel_shape"),
}
"""Fields that are configs with options of their own, or a shape."""


def changed(config: Config) -> Iterator[tuple[str, Any]]:
    """The config with one option changed, each in turn, with `CONFIG.OPTION`; what the config refuses is left out."""
    kind = type(config)
    fields = {name: getattr(config, name) for name in kind.__struct_fields__}
    for name, others in ALTERNATIVES[kind].items():
        for other in others:
            if other == fields[name]:
                continue
            try:
                yield f"{kind.__name__}.{name}", kind(**fields | {name: other})
            except SpecError:
                continue  # such as a value to reset to under a soft reset
    for name in PARTS.get(kind, ()):
        if isinstance(fields[name], Config):
            for what, part in changed(fields[name]):
                yield what, kind(**fields | {name: part})


def without(config: Any, kind: type[Config], name: str, value: Any) -> Any:
    """The config with one option of one kind of config at a fixed value, wherever it occurs in it.

    Raises:
        SpecError: the config refuses the value.
    """
    if not isinstance(config, msgspec.Struct):
        return config
    fields = {field: without(getattr(config, field), kind, name, value) for field in config.__struct_fields__}
    return type(config)(**fields | ({name: value} if type(config) is kind else {}))


def defaults(kind: type[Config]) -> dict[str, Any]:
    """Option -> default, of options that have one."""
    found = {}
    for field in msgspec.structs.fields(kind):
        if field.default is not msgspec.NODEFAULT:
            found[field.name] = field.default
        elif field.default_factory is not msgspec.NODEFAULT:
            found[field.name] = field.default_factory()
    return found
