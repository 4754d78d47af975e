"""The network description: one small typed graph of layers that both twins share, serializable to JSON.

Layers are listed in an order in which every layer follows its inputs. What differs between the twins
(ReLU or LIF, whose sigma, whose statistics) is not in the graph: it is said by the clauses.
Validation infers every shape once, at construction, and refuses a graph that does not fit together.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from twinspike import plain
from twinspike.config import Config, decode
from twinspike.errors import refuse, require

Shape = tuple[int, ...]
"""Of one sample at one time step, without T and B: (C, H, W) for maps, (F,) for vectors."""

INPUT = "input"
"""The name under which layers refer to the network's input."""


class Conv(Config, tag="conv", tag_field="kind", frozen=True, kw_only=True):
    """2-D convolution without bias, (C, H, W) -> (out_channels, H', W'), zero padding on all sides."""

    name: str
    input: str
    out_channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    part: Literal["stem", "backbone", "branch"] = "backbone"
    """Where the layer belongs: decides whether `factorization.scope` covers it."""


class Norm(Config, tag="norm", tag_field="kind", frozen=True, kw_only=True):
    """Batch normalization over channels; each twin has its own scale, shift and statistics."""

    name: str
    input: str


class Activation(Config, tag="activation", tag_field="kind", frozen=True, kw_only=True):
    """ReLU in the artificial twin, LIF neurons in the spiking twin."""

    name: str
    input: str


class Add(Config, tag="add", tag_field="kind", frozen=True, kw_only=True):
    """Sum of two layers of equal shape."""

    name: str
    input: str
    other: str


class AvgPool(Config, tag="avg_pool", tag_field="kind", frozen=True, kw_only=True):
    """Mean over kernel x kernel windows, without padding, remainders dropped."""

    name: str
    input: str
    kernel: int
    stride: int


class GlobalPool(Config, tag="global_pool", tag_field="kind", frozen=True, kw_only=True):
    """Mean over H and W: (C, H, W) -> (C,)."""

    name: str
    input: str


class Linear(Config, tag="linear", tag_field="kind", frozen=True, kw_only=True):
    """Fully connected layer with bias, (F,) -> (out_features,); weight per twin, bias shared."""

    name: str
    input: str
    out_features: int


Layer = Conv | Norm | Activation | Add | AvgPool | GlobalPool | Linear


class Branch(Config, frozen=True, kw_only=True):
    """One exit: the layer whose output is its feature, and the linear layer that gives its logits."""

    feature: str
    head: str


def inputs_of(layer: Layer) -> tuple[str, ...]:
    """Names of the layers that a layer reads."""
    return (layer.input, layer.other) if isinstance(layer, Add) else (layer.input,)


class Network(Config, frozen=True, kw_only=True):
    """A validated graph with its exits; equal descriptions mean equal networks."""

    name: str
    input_shape: tuple[int, int, int]
    """(C, H, W) of one image or one frame of events."""
    event: bool = False
    """False: one static image per sample, (B, C, H, W). True: frames over time, (T, B, C, H, W)."""
    layers: tuple[Layer, ...]
    exits: tuple[Branch, ...]
    """In order of depth; the last is the network's own end (the main exit)."""

    def _check(self) -> None:
        shapes = infer_shapes(self)
        require(len(self.exits) >= 1, f"{self.name}.exits", expected="at least one exit", got=self.exits)
        features, heads = set(), set()
        for exit_ in self.exits:
            for end in (exit_.feature, exit_.head):
                require(end in shapes and end != INPUT, f"{self.name}.exits", expected="names of layers", got=end)
            require(
                isinstance(self.layer(exit_.head), Linear),
                f"{self.name}.exits",
                expected="a linear layer as head",
                got=exit_.head,
            )
            features.add(shapes[exit_.feature])
            heads.add(shapes[exit_.head])
        readers = {name for layer in self.layers for name in inputs_of(layer)}
        ends = {end for exit_ in self.exits for end in (exit_.feature, exit_.head)}
        unread = [layer.name for layer in self.layers if layer.name not in readers | ends]
        require(not unread, f"{self.name}.layers", expected="every layer read by another or by an exit", got=unread)
        require(
            not readers & {exit_.head for exit_ in self.exits},
            f"{self.name}.exits",
            expected="heads that no layer reads",
            got=sorted(readers & {exit_.head for exit_ in self.exits}),
        )
        one_width = len(features) == 1 and len(next(iter(features))) == 1
        require(one_width, f"{self.name}.exits", expected="vector features of one width", got=sorted(features))
        require(len(heads) == 1, f"{self.name}.exits", expected="heads of one width", got=sorted(heads))

    def layer(self, name: str) -> Layer:
        """The layer of that name."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise refuse(f"{self.name}", expected="the name of one of its layers", got=name)

    @property
    def classes(self) -> int:
        """K, outputs of every head."""
        return infer_shapes(self)[self.exits[-1].head][0]

    @property
    def activations(self) -> tuple[str, ...]:
        """Names of the activation layers, in order."""
        return tuple(layer.name for layer in self.layers if isinstance(layer, Activation))


def infer_shapes(network: Network) -> dict[str, Shape]:
    """Output shape of every layer and of the input, checking the graph on the way.

    Raises:
        SpecError: a name is taken or unknown, or shapes do not fit; the line names the layer.
    """
    require(
        all(size >= 1 for size in network.input_shape),
        f"{network.name}.input_shape",
        expected="three sizes >= 1",
        got=network.input_shape,
    )
    shapes: dict[str, Shape] = {INPUT: network.input_shape}
    for layer in network.layers:
        where = f"{network.name}.{layer.name}"
        require(layer.name not in shapes, where, expected="a name not used before", got=layer.name)
        require(
            layer.name != "" and "/" not in layer.name and not layer.name.isspace(),
            where,
            expected="a name without '/'",
            got=layer.name,
        )
        for name in inputs_of(layer):
            require(name in shapes, f"{where}.input", expected="the name of an earlier layer", got=name)
        shapes[layer.name] = _output_shape(layer, shapes, where)
    return shapes


def _output_shape(layer: Layer, shapes: dict[str, Shape], where: str) -> Shape:
    shape = shapes[layer.input]
    match layer:
        case Conv():
            require(len(shape) == 3, where, expected="a (C, H, W) input", got=shape)
            for what in ("out_channels", "kernel", "stride"):
                require(getattr(layer, what) >= 1, f"{where}.{what}", expected="a whole number >= 1", got=getattr(layer, what))
            require(0 <= layer.padding < layer.kernel, f"{where}.padding", expected="0 <= padding < kernel", got=layer.padding)
            size = tuple((n + 2 * layer.padding - layer.kernel) // layer.stride + 1 for n in shape[1:])
            require(min(size) >= 1, where, expected=f"a map of at least {layer.kernel} with its padding", got=shape)
            return (layer.out_channels, *size)
        case AvgPool():
            require(len(shape) == 3, where, expected="a (C, H, W) input", got=shape)
            require(layer.kernel >= 1 and layer.stride >= 1, where, expected="kernel and stride >= 1", got=layer)
            require(min(shape[1:]) >= layer.kernel, where, expected=f"a map of at least {layer.kernel}", got=shape)
            return (shape[0], *((n - layer.kernel) // layer.stride + 1 for n in shape[1:]))
        case GlobalPool():
            require(len(shape) == 3, where, expected="a (C, H, W) input", got=shape)
            return (shape[0],)
        case Linear():
            require(len(shape) == 1, where, expected="a vector input", got=shape)
            require(layer.out_features >= 1, f"{where}.out_features", expected="a whole number >= 1", got=layer.out_features)
            return (layer.out_features,)
        case Add():
            require(shapes[layer.other] == shape, where, expected=f"two inputs of shape {shape}", got=shapes[layer.other])
            return shape
        case Norm() | Activation():
            return shape


def to_json(network: Network) -> str:
    """The description as JSON text, stable and indented."""
    return msgspec.json.format(msgspec.json.encode(network), indent=1).decode()


def from_json(text: str | bytes) -> Network:
    """Read what `to_json` wrote.

    Raises:
        SpecError: the text is no JSON, or describes no valid network.
    """
    return decode(Network, plain.from_json(text, "network"), "network")
