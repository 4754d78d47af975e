"""The numpy backend: what it claims, what it refuses and in which words, and that it copies what it is given."""

from __future__ import annotations

import numpy as np
import pytest

import twinspike as ts
from twinspike.operations import Convolution, Nothing
from twinspike.reference import step

NETWORK = ts.network("digits_cnn", width=2)
METHOD = ts.Method(time_steps=2)
OPTIMIZER = ts.SGD(momentum=0.9)


@pytest.fixture
def session():
    return ts.load("numpy").session(precision="f64")


@pytest.fixture
def program(session):
    return session.program(NETWORK, METHOD, OPTIMIZER)


@pytest.fixture
def state(program):
    return program.load(ts.initial_state(NETWORK, METHOD, OPTIMIZER))


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.standard_normal((3, 1, 8, 8)), rng.integers(0, 10, 3)


def copies(state):
    return {name: value.copy() for name, value in state.items()}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_it_is_found_by_name_and_claims_the_whole_table_in_f64_on_the_cpu():
    backend = ts.load("numpy")
    claims = backend.capabilities()
    assert isinstance(backend, ts.Backend)
    assert backend.name == "numpy"
    assert claims.operations == frozenset(ts.OPERATIONS)
    assert (claims.networks, claims.precisions, claims.devices, claims.compiled) == (True, {"f64"}, ("cpu",), False)
    assert claims.versions["numpy"] == np.__version__


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({}, "precision of backend 'numpy': expected one of f64, got f32-ieee"),
        ({"precision": "f64", "device": "cuda"}, "device of backend 'numpy': expected one of cpu on this machine, got cuda"),
        ({"precision": "f64", "compiled": True}, "compile of backend 'numpy': expected false, got True"),
    ],
)
def test_what_is_not_claimed_is_refused(asked, line):
    with pytest.raises(ts.SpecError) as error:
        ts.load("numpy").session(**asked)
    assert str(error.value) == line


def test_arrays_come_in_as_copies_in_the_storage_format(session):
    for given, kind in ((np.ones(3, np.float32), np.float64), (np.ones(3), np.float64), (np.arange(3, dtype=np.int32), np.int64)):
        tensor = session.from_numpy(given)
        assert tensor.dtype == kind
        assert not np.shares_memory(tensor, given)
        assert not np.shares_memory(session.to_numpy(tensor), tensor)
        assert np.array_equal(tensor, given)
    with pytest.raises(ts.SpecError, match="array: expected floats or integers"):
        session.from_numpy(np.array(["a"]))


def test_operations_are_those_of_the_table(session):
    rng = np.random.default_rng(1)
    inputs = {"x": rng.standard_normal((2, 3, 5, 6)), "kernel": rng.standard_normal((4, 3, 3, 3))}
    before, config = copies(inputs), Convolution(stride=2, padding=1)
    outputs, gradients = session.vjp("conv2d", config, inputs, {"y": np.ones((2, 4, 3, 3))})
    row = ts.OPERATIONS["conv2d"]
    assert same(outputs, row.forward(config, inputs))
    assert same(outputs, session.forward("conv2d", config, inputs))
    assert same(gradients, row.adjoint(config, inputs, {"y": np.ones((2, 4, 3, 3))}))
    assert same(inputs, before)


KERNEL = {"kernel": np.ones((2, 2, 1, 1))}


@pytest.mark.parametrize(
    ("operation", "config", "inputs", "cotangents", "line"),
    [
        ("nothing", Nothing(), {}, {}, "operation: expected one of lif"),
        ("relu", ts.Neuron(), {"x": np.ones(3)}, {}, "relu.config: expected Nothing, got Neuron"),
        ("relu", Nothing(), {"x": [1.0]}, {}, "relu.x: expected an array of this session, got list"),
        ("relu", Nothing(), {"x": np.ones(3, np.float32)}, {}, "relu.x: expected float64 or int64, got float32"),
        ("relu", Nothing(), {}, {}, r"relu.x: expected an array \(\*d\), got nothing"),
        ("lif", ts.Neuron(), {"x": np.ones((2, 3))}, {}, "lif.x: expected shape"),
        ("relu", Nothing(), {"x": np.ones(3)}, {"x": np.ones(3)}, "relu cotangent x: expected one of y, got x"),
        ("relu", Nothing(), {"x": np.ones(3)}, {"y": np.ones(2)}, r"relu cotangent y: expected shape \(3,\), got \(2,\)"),
        ("relu", Nothing(), {"x": np.ones(3)}, {"y": np.ones(3, np.float32)}, "relu cotangent y: expected float64 of shape"),
        ("factorize", ts.Factorization(), KERNEL, {}, "factorize gradient: expected an operation with differentiable inputs"),
    ],
)
def test_operations_refuse_what_does_not_fit(session, operation, config, inputs, cotangents, line):
    with pytest.raises(ts.SpecError, match=line):
        session.vjp(operation, config, inputs, cotangents)


def test_a_state_goes_in_and_out_unchanged(program):
    values = ts.initial_state(NETWORK, METHOD, OPTIMIZER)
    loaded = program.load(values)
    dumped = program.dump(loaded)
    assert same(values, dumped)
    assert list(dumped) == list(values)
    assert not any(np.shares_memory(loaded[name], other[name]) for name in values for other in (values, dumped))


def test_a_state_that_does_not_fit_is_refused(program):
    values = ts.initial_state(NETWORK, METHOD, OPTIMIZER)
    for change, line in (
        ({"main.head.bias": np.zeros(9)}, r"state\[main.head.bias\]: expected shape \(10,\), got \(9,\)"),
        ({"main.head.bias": np.full(10, np.nan)}, r"state\[main.head.bias\]: expected finite values"),
        ({"extra": np.zeros(1)}, "state: expected the names of its network and optimizer, got"),
    ):
        with pytest.raises(ts.SpecError, match=line):
            program.load(values | change)
    del values["main.head.bias"]
    with pytest.raises(ts.SpecError, match=r"state\[main.head.bias\]: expected an array of shape \(10,\), got nothing"):
        program.load(values)


def test_training_is_the_references_and_pure(program, state, batch):
    images, labels = batch
    before = copies(state), images.copy(), labels.copy()
    gradients, metrics = program.gradients(state, images, labels)
    after, again = program.train_step(state, images, labels, 0.1)
    expected, _ = step.train_step(NETWORK, METHOD, OPTIMIZER, state, images, labels, 0.1)
    assert same(after, expected)
    assert metrics == again
    assert list(gradients) == [entry.name for entry in ts.layout(NETWORK, METHOD) if entry.trained]
    assert same(state, before[0])
    assert np.array_equal(images, before[1])
    assert np.array_equal(labels, before[2])
    assert not any(np.shares_memory(after[name], state[name]) for name in state)


def test_single_precision_images_are_widened(program, state, batch):
    images = batch[0].astype(np.float32)
    one, other = program.evaluate(state, images), program.evaluate(state, images.astype(np.float64))
    assert one.logits_snn.dtype == np.float64
    assert np.array_equal(one.logits_snn, other.logits_snn)


def test_evaluation_and_traces_have_the_contracts_shapes(program, state, batch):
    found = program.evaluate(state, batch[0])
    assert (found.logits_ann.shape, found.logits_snn.shape) == ((3, 3, 10), (3, 3, 10))
    assert found.spike_rates.shape == (len(NETWORK.activations),)
    taps = program.trace(state, batch[0])
    assert list(taps) == [layer.name for layer in NETWORK.layers]
    assert {name for name in taps if "u" in taps[name]} == set(NETWORK.activations)
    assert {key: value.shape for key, value in taps["stem.act"].items()} == {
        "ann": (3, 2, 8, 8),
        "snn": (2, 3, 2, 8, 8),
        "u": (2, 3, 2, 8, 8),
    }
    assert np.array_equal(taps["main.head"]["snn"].sum(axis=0), found.logits_snn[-1])
    training = program.trace(state, batch[0], training=True)
    assert not np.array_equal(training["main.head"]["ann"], taps["main.head"]["ann"])


def test_batches_that_do_not_fit_are_refused(program, state, batch):
    images, labels = batch
    for bad, line in (
        ((images[:, :, :7], labels, 0.1), r"images: expected shape \(B, 1, 8, 8\), got \(3, 1, 7, 8\)"),
        ((images * np.nan, labels, 0.1), "images: expected finite values"),
        ((images, labels[:2], 0.1), r"labels: expected shape \(3,\), got \(2,\)"),
        ((images, labels + 10, 0.1), "labels: expected values 0 to 9"),
        ((images, labels, float("nan")), "learning_rate: expected a finite number >= 0, got nan"),
        ((images, labels, -0.1), "learning_rate: expected a finite number >= 0, got -0.1"),
    ):
        with pytest.raises(ts.SpecError, match=line):
            program.train_step(state, *bad)
    for ask in (program.evaluate, program.trace):
        with pytest.raises(ts.SpecError, match="images: expected float32 or float64, got int64"):
            ask(state, np.ones((3, 1, 8, 8), np.int64))


def test_training_lowers_the_loss(program, state, batch):
    losses = []
    for _ in range(12):
        state, metrics = program.train_step(state, *batch, 0.05)
        losses.append(float(metrics.loss))
    assert losses[-1] < losses[0]
