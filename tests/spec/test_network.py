"""Network descriptions: what the zoo holds, JSON both ways, and graphs that are refused."""

from __future__ import annotations

from typing import Any

import pytest

import twinspike as ts
from twinspike.network import (
    INPUT,
    Activation,
    Add,
    AvgPool,
    Branch,
    Conv,
    GlobalPool,
    Layer,
    Linear,
    Network,
    Norm,
    from_json,
    infer_shapes,
    to_json,
)


def kinds(network: Network, kind: type) -> int:
    return sum(isinstance(layer, kind) for layer in network.layers)


def branch_kernels(network: Network) -> list[int]:
    return [
        layer.kernel
        for layer in network.layers
        if isinstance(layer, Conv) and layer.part == "branch" and layer.kernel == layer.stride > 1
    ]


def test_resnet18_is_the_papers() -> None:
    network = ts.network("resnet18")
    assert (kinds(network, Conv), kinds(network, Norm), kinds(network, Activation), kinds(network, Linear)) == (29, 29, 26, 4)
    assert branch_kernels(network) == [8, 4, 2]
    shapes = infer_shapes(network)
    assert [shapes[f"stage{i}.2.act"] for i in (1, 2, 3, 4)] == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    assert [shapes[exit_.feature] for exit_ in network.exits] == [(512,)] * 4
    assert [shapes[exit_.head] for exit_ in network.exits] == [(10,)] * 4
    assert [layer.part for layer in network.layers if isinstance(layer, Conv)].count("stem") == 1


def test_activation_follows_the_addition() -> None:
    """LAY-5."""
    network = ts.network("resnet34")
    adds = [layer.name for layer in network.layers if isinstance(layer, Add)]
    assert len(adds) == 16
    readers = {name: [layer for layer in network.layers if name == getattr(layer, "input", None)] for name in adds}
    assert all(len(found) == 1 and isinstance(found[0], Activation) for found in readers.values())


@pytest.mark.parametrize(
    ("name", "convs", "activations", "kernels", "classes", "width"),
    [
        ("digits_cnn", 9, 9, [4, 2], 10, 64),
        ("resnet18", 29, 26, [8, 4, 2], 10, 512),
        ("resnet34", 45, 42, [8, 4, 2], 10, 512),
        ("resnet19", 25, 24, [4, 2], 10, 512),
        ("resnet20", 27, 25, [4, 2], 10, 64),
        ("vgg16", 22, 22, [8, 4, 2], 200, 512),
    ],
)
def test_zoo(name: str, convs: int, activations: int, kernels: list[int], classes: int, width: int) -> None:
    network = ts.network(name)
    assert (kinds(network, Conv), len(network.activations)) == (convs, activations)
    assert branch_kernels(network) == kernels
    assert network.classes == classes
    assert {infer_shapes(network)[exit_.feature] for exit_ in network.exits} == {(width,)}


def test_the_table_of_the_zoo_is_whole() -> None:
    assert set(ts.ZOO) == {"digits_cnn", "resnet18", "resnet34", "resnet19", "resnet20", "vgg16"}


def test_sizes_follow_what_is_asked() -> None:
    network = ts.network("resnet18", classes=100, input_shape=(2, 64, 48), width=4, event=True)
    shapes = infer_shapes(network)
    assert (network.event, network.classes, shapes[INPUT], shapes["stem.act"]) == (True, 100, (2, 64, 48), (4, 64, 48))
    assert shapes["main.feature"] == (32,)


@pytest.mark.parametrize("name", ts.ZOO)
def test_json_and_back(name: str) -> None:
    network = ts.network(name)
    assert from_json(to_json(network)) == network
    assert from_json(to_json(network).encode()) == network
    assert to_json(from_json(to_json(network))) == to_json(network)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", "network: expected JSON"),
        ("[]", "network: Expected `object`"),
        ('{"name": "a", "input_shape": [1, 8, 8], "layers": [], "exits": []}', "network: a.exits: expected at least one exit"),
        ('{"name": "a", "input_shape": [1, 8], "layers": [], "exits": []}', "network.input_shape: Expected `array` of length 3"),
        (
            '{"name": "a", "input_shape": [1, 8, 8], "layers": [{"kind": "dropout"}], "exits": []}',
            "network.layers[0].kind: Invalid value",
        ),
    ],
)
def test_json_that_describes_no_network_is_refused(text: str, line: str) -> None:
    with pytest.raises(ts.SpecError) as refused:
        from_json(text)
    assert str(refused.value).startswith(line)


def small(*layers: Layer, exits: tuple[Branch, ...] | None = None, **changes: Any) -> Network:
    """A valid small network with layers put before its end."""
    body: tuple[Layer, ...] = (
        Conv(name="conv", input=INPUT, out_channels=4, kernel=3, padding=1),
        Norm(name="norm", input="conv"),
    )
    end: tuple[Layer, ...] = (GlobalPool(name="feature", input="norm"), Linear(name="head", input="feature", out_features=3))
    own = (Branch(feature="feature", head="head"),)
    return Network(
        **{"name": "small", "input_shape": (2, 8, 8), "layers": (*body, *layers, *end), "exits": exits or own, **changes}
    )


def test_small_is_valid() -> None:
    assert infer_shapes(small()) == {INPUT: (2, 8, 8), "conv": (4, 8, 8), "norm": (4, 8, 8), "feature": (4,), "head": (3,)}


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        (Norm(name="conv", input=INPUT), "small.conv: expected a name not used before"),
        (Norm(name=INPUT, input=INPUT), "small.input: expected a name not used before"),
        (Norm(name="", input=INPUT), "small.: expected a name without '/'"),
        (Norm(name="a/b", input=INPUT), "small.a/b: expected a name without '/'"),
        (Norm(name="a", input="later"), "small.a.input: expected the name of an earlier layer, got later"),
        (Norm(name="a", input="a"), "small.a.input: expected the name of an earlier layer, got a"),
        (Conv(name="a", input="conv", out_channels=0, kernel=1), "small.a.out_channels: expected a whole number >= 1"),
        (Conv(name="a", input="conv", out_channels=1, kernel=0), "small.a.kernel: expected a whole number >= 1"),
        (Conv(name="a", input="conv", out_channels=1, kernel=1, stride=0), "small.a.stride: expected a whole number >= 1"),
        (Conv(name="a", input="conv", out_channels=1, kernel=3, padding=3), "small.a.padding: expected 0 <= padding < kernel"),
        (Conv(name="a", input="conv", out_channels=1, kernel=3, padding=-1), "small.a.padding: expected 0 <= padding < kernel"),
        (Conv(name="a", input="conv", out_channels=1, kernel=9), "small.a: expected a map of at least 9"),
        (AvgPool(name="a", input="conv", kernel=9, stride=1), "small.a: expected a map of at least 9"),
        (AvgPool(name="a", input="conv", kernel=0, stride=1), "small.a: expected kernel and stride >= 1"),
        (Add(name="a", input="conv", other=INPUT), "small.a: expected two inputs of shape (4, 8, 8), got (2, 8, 8)"),
        (Add(name="a", input="conv", other="later"), "small.a.input: expected the name of an earlier layer, got later"),
        (Linear(name="a", input="conv", out_features=3), "small.a: expected a vector input, got (4, 8, 8)"),
        (Activation(name="a", input="norm"), "small.layers: expected every layer read by another or by an exit, got ['a']"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layer: Layer, line: str) -> None:
    with pytest.raises(ts.SpecError) as refused:
        small(layer)
    assert str(refused.value).startswith(line)


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        (GlobalPool(name="a", input="feature"), "small.a: expected a (C, H, W) input, got (4,)"),
        (Conv(name="a", input="feature", out_channels=1, kernel=1), "small.a: expected a (C, H, W) input, got (4,)"),
        (AvgPool(name="a", input="feature", kernel=1, stride=1), "small.a: expected a (C, H, W) input, got (4,)"),
        (Linear(name="a", input="feature", out_features=0), "small.a.out_features: expected a whole number >= 1, got 0"),
        (
            Linear(name="a", input="head", out_features=3),
            "small.layers: expected every layer read by another or by an exit, got ['a']",
        ),
    ],
)
def test_layers_after_the_pooling_are_checked_too(layer: Layer, line: str) -> None:
    with pytest.raises(ts.SpecError) as refused:
        small(layers=(*small().layers, layer))
    assert str(refused.value).startswith(line)


def test_a_head_that_a_layer_reads_is_refused() -> None:
    layers = (*small().layers, Linear(name="next", input="head", out_features=3))
    with pytest.raises(ts.SpecError, match=r"expected heads that no layer reads, got \['head'\]"):
        small(layers=layers, exits=(Branch(feature="feature", head="head"), Branch(feature="feature", head="next")))


@pytest.mark.parametrize(
    ("exits", "line"),
    [
        ((Branch(feature="nowhere", head="head"),), "small.exits: expected names of layers, got nowhere"),
        ((Branch(feature=INPUT, head="head"),), "small.exits: expected names of layers, got input"),
        ((Branch(feature="feature", head="norm"),), "small.exits: expected a linear layer as head, got norm"),
        ((Branch(feature="norm", head="head"),), "small.exits: expected vector features of one width"),
        (
            (Branch(feature="feature", head="head"), Branch(feature="head", head="head")),
            "small.exits: expected vector features of one width",
        ),
    ],
)
def test_exits_that_do_not_fit_are_refused(exits: tuple[Branch, ...], line: str) -> None:
    with pytest.raises(ts.SpecError) as refused:
        small(exits=exits)
    assert str(refused.value).startswith(line)


def test_heads_of_two_widths_are_refused() -> None:
    layers = (*small().layers, Linear(name="other", input="feature", out_features=5))
    with pytest.raises(ts.SpecError, match="expected heads of one width"):
        small(layers=layers, exits=(Branch(feature="feature", head="other"), Branch(feature="feature", head="head")))


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("resnet50", {}, "network: expected one of digits_cnn, resnet18"),
        ("resnet18", {"width": 0}, "width: expected a whole number >= 1"),
        ("resnet18", {"classes": 1}, "classes: expected a whole number >= 2"),
        ("resnet18", {"input_shape": (3, 0, 32)}, "input_shape: expected three sizes >= 1"),
        ("vgg16", {"input_shape": (3, 8, 8)}, "vgg16.pool4: expected a map of at least 2"),
    ],
)
def test_sizes_that_the_zoo_can_not_have_are_refused(name: str, options: dict[str, Any], line: str) -> None:
    with pytest.raises(ts.SpecError) as refused:
        ts.network(name, **options)
    assert str(refused.value).startswith(line)


def test_a_layer_is_found_by_name() -> None:
    network = small()
    assert network.layer("norm") == Norm(name="norm", input="conv")
    with pytest.raises(ts.SpecError, match="expected the name of one of its layers, got normal"):
        network.layer("normal")
