"""Every option of every config is tried by a check, and a backend that overlooks it is found out."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import SimpleNamespace

import msgspec
import pytest

import twinspike
from twinspike import config as configs
from twinspike import operations
from twinspike.config import SGD, SURROGATES, Config, Method, Neuron, Sigmoid
from twinspike.operations import OPERATIONS
from twinspike.precision import PRECISIONS
from twinspike_conformance.cases import CASES, Example, materialize
from twinspike_conformance.cases.alternatives import ALTERNATIVES, PARTS, changed, defaults, without
from twinspike_conformance.cases.networks import setting
from twinspike_conformance.cases.options import CELLS, pairs_met
from twinspike_conformance.checks import CHECKS, Bench
from twinspike_conformance.checks.cells import decided
from twinspike_conformance.checks.options import _alternatives
from twinspike_conformance.faults import BY_ID
from twinspike_conformance.faults.options import OVERLOOKED, touched
from twinspike_conformance.faults.within import Within
from twinspike_conformance.report import summary
from twinspike_conformance.run.profiles import PROFILES
from twinspike_conformance.run.runner import run_check
from twinspike_conformance.strength.kill import kill

NETWORKS_ALONE = {
    *("Neuron.decay_scope", "Neuron.threshold_scope", "Penalty.weight", "Retract.every", "Factorization.scope"),
    *(
        "Factorization.orthogonality",
        "BatchNorm.gamma_init",
        "BatchNorm.replicas",
        "Loss.isolate_ann",
        "Loss.per_step",
        "Method.time_steps",
    ),
    *("Method.readout", "Method.linear_init", "SGD.decay_scope", "Adam.decay_scope", "AdamW.decay_scope"),
}
"""Options that no single operation reads; for initial values no backend does."""


def _kinds() -> set[type[Config]]:
    found = {kind for module in (configs, operations) for _, kind in inspect.getmembers(module, inspect.isclass)}
    schedules = {configs.Constant, configs.Cosine}  # computed by the specification, read by no backend
    return {
        kind for kind in found if issubclass(kind, Config) and kind is not Config and not kind.__name__.startswith("_")
    } - schedules


def test_every_option_of_every_config_has_alternatives():
    assert set(ALTERNATIVES) == _kinds()
    for kind, options in ALTERNATIVES.items():
        assert set(options) | set(PARTS.get(kind, ())) == {field.name for field in msgspec.structs.fields(kind)}, kind.__name__
        assert all(len(set(map(repr, others))) >= 2 for others in options.values()), kind.__name__


def _options(config: Config) -> Iterator[tuple[str, str]]:
    """`CONFIG.OPTION` and value, of a config and those within it."""
    for field in config.__struct_fields__:
        value = getattr(config, field)
        yield f"{type(config).__name__}.{field}", repr(value)
        if isinstance(value, Config):
            yield from _options(value)


ONE_VALUE = {
    *(f"{kind.__name__}.{option}" for kind in SURROGATES for option in kind.__struct_fields__),
    *("Penalty.weight", *(f"{kind}.{name}" for kind in ("Adam", "AdamW") for name in ("beta1", "beta2", "eps"))),
}
"""Constants that cells have at one value, which is not the default: `matters[...]` changes them."""


def test_cells_have_every_value_of_every_option_beside_every_other():
    reached, every = pairs_met(CELLS)
    assert reached == every > 3600
    assert pairs_met(CELLS[:1])[0] < every
    values: dict[str, set[str]] = {}
    for cell in CELLS:
        s = setting(Example("network", cell, {"B": 3}, "normal", False, 0), "float64")
        for option, value in (*_options(s.method), *_options(s.optimizer)):
            values.setdefault(option, set()).add(value)
    read = {kind for kind in ALTERNATIVES if kind.__module__ == "twinspike.config"}
    assert set(values) == {f"{kind.__name__}.{field.name}" for kind in read for field in msgspec.structs.fields(kind)}
    assert {option for option, found in values.items() if len(found) < 2} == ONE_VALUE
    defaulted = {f"{kind.__name__}.{name}": repr(value) for kind in read for name, value in defaults(kind).items()}
    assert [option for option in sorted(ONE_VALUE) if defaulted[option] in values[option]] == []


@pytest.mark.parametrize("precision", ["f64", "f32-ieee"])
def test_rounding_decides_no_cell(precision):
    """The profile ci then compares something in every one, in every precision, as its report says; and both layers fire."""
    session = twinspike.load("numpy").session("cpu", "f64")
    for example in CHECKS["network[options]"].space.cover():
        s = decided(example, PRECISIONS[precision])
        program = session.program(s.network, s.method, s.optimizer)
        trace = program.trace(program.load(s.state), s.images[0], training=True)
        assert all(0 < trace[name]["snn"].mean() < 1 for name in s.network.activations)


def test_the_report_says_how_many_pairs_of_options_were_met():
    backend = twinspike.load("numpy")
    bench, check = Bench(backend, backend.session("cpu", "f64")), CHECKS["network[options]"]
    whole, part = (run_check(check, bench, PROFILES[name], 0) for name in ("ci", "smoke"))
    assert whole.configs == (len(CELLS), len(CELLS))
    assert whole.pairs == pairs_met(CELLS)
    assert 0 < part.pairs[0] < part.pairs[1]
    assert summary.reached([whole]).startswith(f"options: {whole.pairs[0]} of {whole.pairs[0]} pairs of option values")


def test_smoke_leaves_options_out_of_a_compiled_run():
    backend = twinspike.load("numpy")
    session = Within(backend.session("cpu", "f64"))
    session.compiled = True
    claimed = msgspec.structs.replace(backend.capabilities(), compiled=True)
    bench = Bench(SimpleNamespace(name="compiled", capabilities=lambda: claimed), session)
    assert run_check(CHECKS["network[options]"], bench, PROFILES["smoke"], 0).status == "not run"


def test_every_option_that_an_operation_reads_is_seen_to_matter():
    backend = twinspike.load("numpy")
    bench = Bench(backend, backend.session("cpu", "f64"))
    seen = set()
    for check in CHECKS.values():
        if check.id.startswith("matters["):
            for example in check.space.cover():
                found = check.run(bench, example)
                assert all(finding.ok for finding in found)
                seen |= {finding.quantity.split(", ")[-1].removesuffix(" changed") for finding in found}
    every = {f"{kind.__name__}.{option}" for kind, options in ALTERNATIVES.items() for option in options}
    assert every - seen == NETWORKS_ALONE


@pytest.mark.parametrize("precision", ["f32-ieee", "tf32", "bf16-mixed"])
def test_an_option_that_changes_shapes_is_looked_for_in_every_precision(precision):
    row, form = OPERATIONS["conv2d"], PRECISIONS[precision]
    for example in CHECKS["matters[conv2d]"].space.cover():
        material = materialize(CASES[row.name], example, form.activations)
        found = {option for option, _, _ in _alternatives(row, material, form)}
        assert found == {"Convolution.stride", "Convolution.padding"}


@pytest.mark.parametrize(
    "fault",
    [
        *(
            "option-loss-form",
            "option-sgd-decay-scope",
            "out-last-step-prediction",
        ),
        *("option-convolution-stride", "option-adam-beta1", "option-retract-every", "option-sigmoid-slope"),
    ],
)
def test_an_overlooked_option_is_found_by_two_checks(fault):
    assert len(kill(BY_ID[fault], twinspike.load("numpy")).killers) == 2


def test_an_overlooked_option_is_looked_for_where_it_is_read():
    assert touched("option-retract-every") == {"retract", "networks", "factorize", "compose"}
    assert touched("option-convolution-stride") == {"conv2d"}
    assert touched("option-tanh-slope") == {"lif", "spike", "networks"}
    assert touched("option-sgd-nesterov") == {"optimizer_step", "networks"}
    assert set(OVERLOOKED) <= set(BY_ID)


def test_one_option_changes_at_a_time():
    neuron = Neuron(reset="soft", surrogate=Sigmoid(slope=3.0))
    for option, other in changed(neuron):
        kind, name = option.split(".")
        differing = [f for f in Neuron.__struct_fields__ if getattr(other, f) != getattr(neuron, f)]
        assert differing == [name if kind == "Neuron" else "surrogate"]


def test_an_option_is_taken_out_wherever_it_lies():
    method = Method(neuron=Neuron(surrogate=Sigmoid(slope=3.0)))
    assert without(method, Sigmoid, "slope", 5.0) == Method(neuron=Neuron(surrogate=Sigmoid(slope=5.0)))
    assert without(SGD(momentum=0.5), SGD, "momentum", 0.0) == SGD()
    with pytest.raises(twinspike.SpecError, match="nesterov"):
        without(SGD(momentum=0.5, nesterov=True), SGD, "momentum", 0.0)
