"""Refusals shared by all backends: inputs of operations, batches, and sessions that are not claimed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import twinspike as ts
from twinspike.checks import (
    check_batch,
    check_claim,
    check_cotangents,
    check_differentiable,
    check_images,
    check_operation,
    check_rate,
)
from twinspike.errors import SpecError
from twinspike.operations import Composition, Pooling

LETTERS = {"T": 2, "B": 3, "C": 4, "K": 5, "N": 6, "S": 7, "O": 8, "I": 9, "F": 10, "H": 11, "W": 12, "m": 13, "n": 14, "r": 15}
LETTERS |= {"kh": 16, "kw": 17, "*d": 18, "*p": 19}
NEEDED: dict[str, dict[str, Any]] = {"compose": {"kernel_shape": (1, 1, 1, 1)}, "avg_pool": {"kernel": 2, "stride": 2}}

Shapes = dict[str, tuple[int, ...]]


def config_of(row: ts.Operation) -> Any:
    kinds = getattr(row.config, "__args__", (row.config,))
    return kinds[0](**NEEDED.get(row.name, {}))


def shapes_of(row: ts.Operation, *, optional: bool = True) -> Shapes:
    """A shape for every input, sizes all different."""
    shapes: Shapes = {}
    for name, dims in row.inputs.items():
        wanted, mark, _ = dims.partition("?")
        if optional or not mark:
            letters = wanted.split()
            shapes[name] = (LETTERS["C"],) if "or" in letters else tuple(LETTERS[letter] for letter in letters)
    return shapes


def floats(row: ts.Operation) -> dict[str, bool]:
    return {name: name not in ("labels", "step") for name in row.inputs}


ROWS = pytest.mark.parametrize("name", ts.OPERATIONS)


@ROWS
def test_what_fits_passes(name: str) -> None:
    row = ts.OPERATIONS[name]
    check_operation(name, config_of(row), shapes_of(row), floats(row))
    check_operation(name, config_of(row), shapes_of(row, optional=False), floats(row))


@ROWS
def test_every_input_is_checked(name: str) -> None:
    """One axis more, a wrong kind of number, or, where it is needed, nothing: each is refused and named."""
    row = ts.OPERATIONS[name]
    for key, dims in row.inputs.items():
        shapes = shapes_of(row)
        if not any(letter.startswith("*") for letter in dims.split()):
            with pytest.raises(ts.SpecError, match=rf"^{name}\.{key}: expected shape"):
                check_operation(name, config_of(row), shapes | {key: (*shapes[key], 2)}, floats(row))
        with pytest.raises(ts.SpecError, match=rf"^{name}\.{key}: expected an? (integer|floating) dtype"):
            check_operation(name, config_of(row), shapes, floats(row) | {key: not floats(row)[key]})
        if "?" not in dims:
            with pytest.raises(ts.SpecError, match=rf"^{name}\.{key}: expected an array"):
                check_operation(name, config_of(row), {k: v for k, v in shapes.items() if k != key}, floats(row))


@ROWS
def test_a_size_that_is_zero_or_differs_between_inputs_is_refused(name: str) -> None:
    row = ts.OPERATIONS[name]
    shared = [dims.partition("?")[0].split() for dims in row.inputs.values()]
    for key, dims in row.inputs.items():
        shapes, letters = shapes_of(row), dims.partition("?")[0].split()
        for axis, letter in enumerate(letters if "or" not in letters else ["C"]):
            changed = list(shapes[key])
            changed[axis] = 0
            with pytest.raises(ts.SpecError, match=rf"^{name}\."):
                check_operation(name, config_of(row), shapes | {key: tuple(changed)}, floats(row))
            if sum(letter in other for other in shared) > 1:
                changed[axis] = 99
                with pytest.raises(ts.SpecError, match=rf"^{name}\."):
                    check_operation(name, config_of(row), shapes | {key: tuple(changed)}, floats(row))


@ROWS
def test_unknown_inputs_and_other_configs_are_refused(name: str) -> None:
    row = ts.OPERATIONS[name]
    with pytest.raises(ts.SpecError, match=rf"^{name} inputs: expected names among"):
        check_operation(name, config_of(row), shapes_of(row) | {"extra": ()}, floats(row) | {"extra": True})
    with pytest.raises(ts.SpecError, match=rf"^{name}\.config: expected"):
        check_operation(name, ts.Method(), shapes_of(row), floats(row))


def test_unknown_operations_are_refused() -> None:
    with pytest.raises(ts.SpecError, match="operation: expected one of lif, spike"):
        check_operation("gru", Pooling(kernel=1, stride=1), {}, {})


def test_letters_may_stand_for_any_number_of_axes() -> None:
    row = ts.OPERATIONS["lif"]
    for space in ((), (5,), (5, 6, 7)):
        check_operation("lif", ts.Neuron(), {"x": (2, 3, 4, *space), "v": (3, 4, *space), "decay": ()}, floats(row))
    with pytest.raises(ts.SpecError, match=r"^lif\.v: expected shape \(B, C, \*d\)"):
        check_operation("lif", ts.Neuron(), {"x": (2, 3, 4, 5), "v": (3, 4)}, floats(row))
    with pytest.raises(ts.SpecError, match=r"^lif\.decay: expected shape \(\) or \(4,\), got \(3,\)"):
        check_operation("lif", ts.Neuron(), {"x": (2, 3, 4), "decay": (3,)}, floats(row))
    compose = Composition(kernel_shape=(13, 14))
    check_operation("compose", compose, {"U": (13, 2), "sigma": (2,), "V": (2, 14)}, {"U": True, "sigma": True, "V": True})


STATIC = ts.network("digits_cnn", width=2)
EVENT = ts.network("digits_cnn", width=2, event=True)
METHOD = ts.Method(time_steps=3)


def images(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.zeros(shape, dtype=np.float32)


def test_images_that_fit_give_their_number() -> None:
    assert check_images(STATIC, METHOD, images(5, 1, 8, 8)) == 5
    assert check_images(STATIC, METHOD, images(1, 1, 8, 8).astype(np.float64)) == 1
    assert check_images(EVENT, METHOD, images(3, 5, 1, 8, 8)) == 5


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (STATIC, (1, 8, 8)),
        (STATIC, (5, 1, 8, 9)),
        (STATIC, (5, 2, 8, 8)),
        (STATIC, (0, 1, 8, 8)),
        (STATIC, (3, 5, 1, 8, 8)),
        (EVENT, (5, 1, 8, 8)),
        (EVENT, (4, 5, 1, 8, 8)),
        (EVENT, (3, 0, 1, 8, 8)),
    ],
)
def test_images_of_other_shapes_are_refused(network: ts.Network, shape: tuple[int, ...]) -> None:
    with pytest.raises(ts.SpecError, match=r"^images: expected shape \((3, )?B, 1, 8, 8\), got"):
        check_images(network, METHOD, images(*shape))


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.int64])
def test_images_of_other_types_are_refused(dtype: Any) -> None:
    with pytest.raises(ts.SpecError, match=r"^images: expected float32 or float64"):
        check_images(STATIC, METHOD, images(5, 1, 8, 8).astype(dtype))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_images_that_are_not_finite_are_refused(value: float) -> None:
    bad = images(5, 1, 8, 8)
    bad[4, 0, 7, 7] = value
    with pytest.raises(ts.SpecError, match=r"^images: expected finite values"):
        check_images(STATIC, METHOD, bad)


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (np.zeros(4, dtype=np.int64), r"^labels: expected shape \(5,\), got \(4,\)"),
        (np.zeros((5, 1), dtype=np.int64), r"^labels: expected shape \(5,\)"),
        (np.zeros(5, dtype=np.int32), "^labels: expected int64, got int32"),
        (np.zeros(5), "^labels: expected int64, got float64"),
        (np.array([0, 1, 2, 3, 10]), "^labels: expected values 0 to 9, got 0 to 10"),
        (np.array([0, 1, 2, 3, -1]), "^labels: expected values 0 to 9, got -1 to 3"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Any, line: str) -> None:
    check_batch(STATIC, METHOD, images(5, 1, 8, 8), np.array([0, 1, 2, 3, 9]))
    with pytest.raises(ts.SpecError, match=line):
        check_batch(STATIC, METHOD, images(5, 1, 8, 8), labels)


CLAIMED = ts.Capabilities(
    operations=frozenset(), networks=False, precisions=frozenset({"f64"}), devices=("cpu", "cuda"), compiled=False, versions={}
)


def test_a_claim_is_honoured() -> None:
    check_claim("own", CLAIMED, "cpu", "f64", False)
    check_claim("own", CLAIMED, "cuda:1", "f64", False)


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (("tpu", "f64", False), "device of backend 'own': expected one of cpu, cuda on this machine, got tpu"),
        (("cpu", "f32-ieee", False), "precision of backend 'own': expected one of f64, got f32-ieee"),
        (("cpu", "f64", True), "compile of backend 'own': expected false, got True"),
    ],
)
def test_what_is_not_claimed_is_refused(asked: tuple[str, str, bool], line: str) -> None:
    with pytest.raises(ts.SpecError) as refused:
        check_claim("own", CLAIMED, *asked)
    assert str(refused.value) == line


@pytest.mark.parametrize("rate", [-1e-9, float("nan"), float("inf")])
def test_a_learning_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(SpecError, match=r"^learning_rate: expected a finite number >= 0, got "):
        check_rate(rate)
    check_rate(0.0)


def test_cotangents_that_do_not_fit_are_refused() -> None:
    outputs = {"s": (3, 2), "u": (3, 2)}
    check_cotangents("lif", {"s": (3, 2)}, {"s": True}, outputs)
    for key, shape, floating, told in (
        ("x", (3, 2), True, "lif cotangent x: expected one of "),
        ("s", (3,), True, r"lif cotangent s: expected shape \(3, 2\), got \(3,\)"),
        ("s", (3, 2), False, r"lif cotangent s: expected a float of shape \(3, 2\), got another dtype"),
    ):
        with pytest.raises(SpecError, match=told):
            check_cotangents("lif", {key: shape}, {key: floating}, outputs)


def test_an_operation_without_gradients_has_no_adjoint() -> None:
    check_differentiable("lif")
    with pytest.raises(SpecError, match="factorize gradient: expected an operation with differentiable inputs"):
        check_differentiable("factorize")
