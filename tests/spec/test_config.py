"""Configs: the method's defaults, one form per value, and no way to build an invalid one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import twinspike as ts
from twinspike.config import SURROGATES, Exit, decode, distillation_pairs, encode, parse_pair

CONFIGS: tuple[msgspec.Struct, ...] = (
    *(surrogate() for surrogate in SURROGATES),
    ts.Method(),
    ts.Method(
        time_steps=7,
        neuron=ts.Neuron(decay=0.5, threshold=1.0, surrogate=ts.Arctan(slope=3.0), v_reset=-0.25, threshold_scope="channel"),
        factorization=ts.Factorization(scope="no_stem", rank=0.9, orthogonality=ts.Retract(every=3, by="qr")),
        batch_norm=ts.BatchNorm(time="folded", gamma_init="threshold"),
        readout="mean",
        loss=ts.Loss(form="kl", pairs=("snn1<-ann2", "ann1<-snn2"), per_step=True),
    ),
    ts.Factorization(rank=12, orthogonality=ts.Penalty(weight=0.5)),
    ts.SGD(momentum=0.9, nesterov=True, decay_scope="no_norm_bias"),
    ts.Adam(beta1=0.0),
    ts.AdamW(weight_decay=0.01),
    ts.Constant(warmup_epochs=0.5),
    ts.Cosine(floor=0.01, unit="step"),
)


def test_defaults_are_the_papers() -> None:
    method = ts.Method()
    assert (method.time_steps, method.readout) == (4, "sum")
    neuron = method.neuron
    assert (neuron.decay, neuron.threshold, neuron.reset, neuron.v_reset, neuron.detach_reset) == (0.25, 0.5, "hard", 0.0, False)
    assert neuron.surrogate == ts.Rectangle(width=1.0)
    assert (method.factorization.scope, method.factorization.matricize, method.factorization.rank) == (
        "all_convs",
        "per_position",
        "full",
    )
    assert method.factorization.orthogonality == ts.Free()
    assert (method.batch_norm.time, method.batch_norm.momentum, method.batch_norm.eps) == ("per_step", 0.1, 1e-5)
    loss = method.loss
    assert (loss.alpha, loss.beta, loss.temperature, loss.form, loss.pairs) == (0.1, 1e-6, 3.0, "ce", "joint")
    assert (loss.feature_reduction, loss.detach_teacher, loss.isolate_ann, loss.per_step) == ("sum", True, False, False)
    assert (ts.SGD().momentum, ts.SGD().weight_decay, ts.SGD().decay_scope) == (0.0, 5e-4, "all")
    assert (ts.Cosine().floor, ts.Cosine().unit) == (0.0, "epoch")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_encode_and_decode_are_inverse(config: msgspec.Struct) -> None:
    assert decode(type(config), encode(config)) == config
    assert decode(type(config), msgspec.json.decode(msgspec.json.encode(encode(config)))) == config


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_configs_are_frozen_keyword_only_and_hashable(config: msgspec.Struct) -> None:
    assert hash(config) == hash(decode(type(config), encode(config)))
    for name in config.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(config, name, getattr(config, name))
    if config.__struct_fields__:
        with pytest.raises(TypeError):
            type(config)(getattr(config, config.__struct_fields__[0]))


def test_values_take_one_form() -> None:
    assert ts.Neuron(decay=1) == ts.Neuron(decay=1.0)
    assert repr(ts.Neuron(decay=1)) == repr(ts.Neuron(decay=1.0))
    assert ts.Loss(pairs=["snn1<-ann1"]) == ts.Loss(pairs=("snn1<-ann1",))  # type: ignore[arg-type]
    assert isinstance(ts.Factorization(rank=1).rank, int)


NAN, INF = float("nan"), float("inf")
REFUSED: tuple[tuple[Any, dict[str, Any], str], ...] = (
    *((kind, {"width": width}, "surrogate.width") for kind in SURROGATES[:2] for width in (0.0, -1.0, NAN, INF)),
    *((kind, {"slope": slope}, "surrogate.slope") for kind in SURROGATES[2:] for slope in (0.0, -1.0, NAN, INF)),
    *((ts.Neuron, {"decay": decay}, "neuron.decay") for decay in (-0.001, 1.001, NAN)),
    *((ts.Neuron, {"threshold": threshold}, "neuron.threshold") for threshold in (0.0, -1.0, INF)),
    (ts.Neuron, {"v_reset": 0.5}, "neuron.v_reset"),
    (ts.Neuron, {"v_reset": -INF}, "neuron.v_reset"),
    (ts.Neuron, {"v_reset": -0.1, "reset": "soft"}, "neuron.v_reset"),
    (ts.Neuron, {"reset": "none"}, "Neuron.reset"),
    (ts.Neuron, {"decay": "0.5"}, "Neuron.decay"),
    (ts.Neuron, {"decay": True}, "Neuron.decay"),
    (ts.Neuron, {"detach_reset": 1}, "Neuron.detach_reset"),
    (ts.Neuron, {"surrogate": "rectangle"}, "Neuron.surrogate"),
    (ts.Neuron, {"decay_scope": "neuron"}, "Neuron.decay_scope"),
    *((ts.Penalty, {"weight": weight}, "orthogonality.weight") for weight in (0.0, -1.0, NAN)),
    (ts.Retract, {"every": 0}, "orthogonality.every"),
    (ts.Retract, {"by": "svd"}, "Retract.by"),
    *((ts.Factorization, {"rank": rank}, "factorization.rank") for rank in (0, -3, 0.0, 1.0, NAN)),
    (ts.Factorization, {"rank": "half"}, "Factorization.rank"),
    (ts.Factorization, {"rank": True}, "Factorization.rank"),
    *((ts.BatchNorm, {"momentum": momentum}, "batch_norm.momentum") for momentum in (0.0, 1.001, NAN)),
    *((ts.BatchNorm, {"eps": eps}, "batch_norm.eps") for eps in (0.0, -1e-5, INF)),
    *((ts.Loss, {"alpha": alpha}, "loss.alpha") for alpha in (-0.001, 1.001, NAN)),
    *((ts.Loss, {"beta": beta}, "loss.beta") for beta in (-1e-9, INF)),
    *((ts.Loss, {"temperature": temperature}, "loss.temperature") for temperature in (0.0, INF, NAN)),
    (ts.Loss, {"pairs": "all"}, "Loss.pairs"),
    (ts.Method, {"time_steps": 0}, "time_steps"),
    (ts.Method, {"time_steps": 2.5}, "Method.time_steps"),
    (ts.Method, {"readout": "last"}, "Method.readout"),
    *((ts.SGD, {"momentum": momentum}, "optimizer.momentum") for momentum in (-0.1, 1.0, NAN)),
    (ts.SGD, {"nesterov": True}, "optimizer.nesterov"),
    *((kind, {"weight_decay": -1e-9}, "optimizer.weight_decay") for kind in (ts.SGD, ts.Adam, ts.AdamW)),
    *((kind, {beta: 1.0}, f"optimizer.{beta}") for kind in (ts.Adam, ts.AdamW) for beta in ("beta1", "beta2")),
    *((kind, {"eps": 0.0}, "optimizer.eps") for kind in (ts.Adam, ts.AdamW)),
    *(
        (kind, {"warmup_epochs": value}, "schedule.warmup_epochs")
        for kind in (ts.Constant, ts.Cosine)
        for value in (-0.5, NAN, INF)
    ),
    (ts.Cosine, {"floor": -0.1}, "schedule.floor"),
)


@pytest.mark.parametrize(("kind", "values", "where"), REFUSED)
def test_refusals_are_one_line_that_names_the_field(kind: Any, values: dict[str, Any], where: str) -> None:
    with pytest.raises(ts.SpecError) as refused:
        kind(**values)
    assert str(refused.value).startswith(f"{where}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({"neuron": {"decay": 2.0}}, "config.neuron: neuron.decay: expected"),
        ({"neuron": {"leak": 0.5}}, "config.neuron: Object contains unknown field `leak`"),
        (
            {"factorization": {"view": "permute"}},
            "config.factorization.view: no option any more, kernels are always permuted (clauses FAC-2 and FAC-9); "
            "leave it out, and train anew what was saved with it",
        ),
        ({"neuron": {"view": "permute"}}, "config.neuron: Object contains unknown field `view`"),
        ({"time_steps": "4"}, "config.time_steps: Expected `int`, got `str`"),
        ({"neuron": {"surrogate": {"kind": "box"}}}, "config.neuron.surrogate.kind: Invalid value 'box'"),
        ([], "config: Expected `object`, got `array`"),
    ],
)
def test_decode_says_where(data: Any, where: str) -> None:
    with pytest.raises(ts.SpecError) as refused:
        decode(ts.Method, data)
    assert str(refused.value).startswith(where)


@pytest.mark.parametrize(
    ("closed", "values"), [(ts.Neuron, {"decay": (0.0, 1.0)}), (ts.Loss, {"alpha": (0.0, 1.0), "beta": (0.0,)})]
)
def test_closed_ends_are_inside(closed: Any, values: dict[str, tuple[float, ...]]) -> None:
    for name, ends in values.items():
        for end in ends:
            assert getattr(closed(**{name: end}), name) == end


def test_pairs_are_read_as_student_and_teacher() -> None:
    assert parse_pair("snn1<-ann4") == (Exit("snn", 1), Exit("ann", 4))
    assert parse_pair(" ann2 <- snn12 ") == (Exit("ann", 2), Exit("snn", 12))


@pytest.mark.parametrize(
    "text", ["", "snn1", "snn1<-", "snn1<-ann", "snn0<-ann1", "cnn1<-ann1", "snn1->ann1", "snn1<-snn1", "snn1<-ann1<-ann2"]
)
def test_malformed_pairs_are_refused(text: str) -> None:
    with pytest.raises(ts.SpecError, match=r"^loss\.pairs: expected 'student<-teacher'"):
        ts.Loss(pairs=(text,))


def test_presets_follow_the_clause() -> None:
    """DIS-4."""
    ann = tuple((Exit("ann", i), Exit("ann", 4)) for i in (1, 2, 3))
    snn = tuple((Exit("snn", i), Exit("ann", i)) for i in (1, 2, 3, 4))
    assert distillation_pairs(ts.Loss(pairs="joint"), 4) == ann + snn
    assert distillation_pairs(ts.Loss(pairs="ann_only"), 4) == ann
    assert distillation_pairs(ts.Loss(pairs="snn_from_ann"), 4) == snn
    assert distillation_pairs(ts.Loss(pairs="none"), 4) == ()
    assert distillation_pairs(ts.Loss(pairs=("snn2<-ann1",)), 2) == ((Exit("snn", 2), Exit("ann", 1)),)
    assert distillation_pairs(ts.Loss(pairs="joint"), 1) == ((Exit("snn", 1), Exit("ann", 1)),)


def test_a_pair_beyond_the_exits_is_refused() -> None:
    with pytest.raises(ts.SpecError, match="exits 1 to 3 of this network, got ann4"):
        distillation_pairs(ts.Loss(pairs=("snn1<-ann4",)), 3)
