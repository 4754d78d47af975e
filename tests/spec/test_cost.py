"""Costs: the published counts of the paper's network, and small ones counted by hand."""

from __future__ import annotations

import pytest

import twinspike as ts
from twinspike.cost import cost
from twinspike.network import Activation, Branch, Conv, GlobalPool, Linear, Network, Norm


def test_resnet18_has_the_papers_parameters_and_flop() -> None:
    found = cost(ts.network("resnet18"), ts.Method())
    assert found.parameters == 24_703_471
    # 1.19 GFLOP per network and 17.8 per training image, each as rounded in the method's cost model
    assert found.flop_ann / 1e9 == pytest.approx(1.19, abs=0.005)
    assert found.flop_snn == 4 * found.flop_ann
    assert found.flop_training == 3 * (found.flop_ann + found.flop_snn)
    assert found.flop_training / (3 * 5) == found.flop_ann


def tiny() -> Network:
    layers = (
        Conv(name="c", input="input", out_channels=5, kernel=3, stride=2, padding=1, part="stem"),
        Norm(name="n", input="c"),
        Activation(name="a", input="n"),
        GlobalPool(name="p", input="a"),
        Linear(name="l", input="p", out_features=7),
    )
    return Network(name="tiny", input_shape=(2, 8, 6), layers=layers, exits=(Branch(feature="p", head="l"),))


def test_a_small_network_counted_by_hand() -> None:
    found = {layer.name: layer for layer in cost(tiny(), ts.Method(time_steps=3)).layers}
    conv = found["c"]
    assert conv.shape == (5, 4, 3)
    assert conv.macs == (5 * 2 * 3 * 3) * (4 * 3)
    assert conv.shared == 9 * (5 * 2 + 2 * 2)  # U and V at rank min(5, 2)
    assert conv.ann == conv.snn == 9 * 2  # sigma
    assert (found["n"].shared, found["n"].ann, found["n"].snn, found["n"].macs) == (0, 10, 10, 0)
    assert (found["a"].parameters, found["p"].parameters) == (0, 0)
    assert (found["l"].shared, found["l"].ann, found["l"].snn, found["l"].macs) == (7, 35, 35, 35)
    assert cost(tiny(), ts.Method()).compose_macs == 2 * 9 * (5 * 2 * 2)


def test_learned_neurons_and_unfactored_layers_belong_to_their_twins() -> None:
    method = ts.Method(
        neuron=ts.Neuron(decay_scope="layer", threshold_scope="channel"), factorization=ts.Factorization(scope="none")
    )
    found = {layer.name: layer for layer in cost(tiny(), method).layers}
    assert (found["a"].shared, found["a"].ann, found["a"].snn) == (0, 0, 1 + 5)
    assert (found["c"].shared, found["c"].ann, found["c"].snn) == (0, 90, 90)
    assert cost(tiny(), method).compose_macs == 0


@pytest.mark.parametrize("name", ts.ZOO)
def test_totals_are_the_layouts(name: str) -> None:
    network, method = ts.network(name, width=4), ts.Method()
    sizes = [entry for entry in ts.layout(network, method) if entry.trained]
    total = 0
    for entry in sizes:
        size = 1
        for n in entry.shape:
            size *= n
        total += size
    assert cost(network, method).parameters == total
