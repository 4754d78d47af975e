"""The networks that the specification names, each derived from a width and an input shape.

Every network ends its early stages in a distillation branch whose kernel is the ratio of that
stage's map to the last map, so that all exits give features of one width from maps of like size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from twinspike.errors import refuse, require
from twinspike.network import INPUT, Activation, Add, AvgPool, Branch, Conv, GlobalPool, Layer, Linear, Network, Norm

Part = Literal["stem", "backbone", "branch"]


class _Builder:
    """Collects layers in order; each method returns the name of the layer that it ends with."""

    def __init__(self, input_shape: tuple[int, int, int]) -> None:
        self.layers: list[Layer] = []
        self.maps: dict[str, int] = {INPUT: min(input_shape[1:])}

    def conv(
        self, name: str, source: str, channels: int, kernel: int, stride: int = 1, part: Part = "backbone", act: bool = True
    ) -> str:
        """Conv, norm and, unless `act` is false, activation; padded to keep the map where kernel > stride."""
        padding = kernel // 2 if kernel > stride else 0
        self.layers.append(
            Conv(
                name=f"{name}.conv", input=source, out_channels=channels, kernel=kernel, stride=stride, padding=padding, part=part
            )
        )
        self.layers.append(Norm(name=f"{name}.norm", input=f"{name}.conv"))
        last = f"{name}.norm"
        if act:
            self.layers.append(Activation(name=f"{name}.act", input=last))
            last = f"{name}.act"
        self.maps[last] = (self.maps[source] + 2 * padding - kernel) // stride + 1
        return last

    def pool(self, name: str, source: str) -> str:
        self.layers.append(AvgPool(name=name, input=source, kernel=2, stride=2))
        self.maps[name] = self.maps[source] // 2
        return name

    def block(self, name: str, source: str, in_channels: int, channels: int, stride: int) -> str:
        """A basic residual block whose activation follows the addition."""
        first = self.conv(f"{name}.1", source, channels, 3, stride)
        second = self.conv(f"{name}.2", first, channels, 3, act=False)
        shortcut = source
        if stride != 1 or in_channels != channels:
            shortcut = self.conv(f"{name}.shortcut", source, channels, 1, stride, act=False)
        self.layers.append(Add(name=f"{name}.add", input=second, other=shortcut))
        self.layers.append(Activation(name=f"{name}.act", input=f"{name}.add"))
        self.maps[f"{name}.act"] = self.maps[second]
        return f"{name}.act"

    def exits(self, stages: list[str], width: int, features: int, classes: int, hidden: int | None = None) -> tuple[Branch, ...]:
        """Branches after all stages but the last, then the network's own end."""
        final = self.maps[stages[-1]]
        exits = []
        for i, stage in enumerate(stages[:-1], start=1):
            name, ratio = f"branch{i}", max(1, self.maps[stage] // max(1, final))
            last = self.conv(f"{name}.1", stage, 2 * width, 1, part="branch")
            last = self.conv(f"{name}.2", last, 2 * width, ratio, ratio, part="branch")
            last = self.conv(f"{name}.3", last, features, 1, part="branch")
            exits.append(self._end(name, last, classes))
        exits.append(self._end("main", stages[-1], classes, hidden))
        return tuple(exits)

    def _end(self, name: str, source: str, classes: int, hidden: int | None = None) -> Branch:
        feature = f"{name}.feature"
        self.layers.append(GlobalPool(name=feature, input=source))
        last = feature
        if hidden is not None:
            self.layers.append(Linear(name=f"{name}.hidden", input=feature, out_features=hidden))
            self.layers.append(Activation(name=f"{name}.hidden.act", input=f"{name}.hidden"))
            last = f"{name}.hidden.act"
        self.layers.append(Linear(name=f"{name}.head", input=last, out_features=classes))
        return Branch(feature=feature, head=f"{name}.head")


Builder = Callable[[_Builder, int, int], tuple[Branch, ...]]


def _residual(blocks: tuple[int, ...], widths: tuple[int, ...], hidden: int | None = None) -> Builder:
    """Stem, then stages of basic blocks; `widths` and `hidden` in multiples of the base width."""

    def build(b: _Builder, width: int, classes: int) -> tuple[Branch, ...]:
        channels = width * widths[0]
        last = b.conv("stem", INPUT, channels, 3, part="stem")
        stages = []
        for s, (count, multiple) in enumerate(zip(blocks, widths, strict=True), start=1):
            for i in range(1, count + 1):
                stride = 2 if s > 1 and i == 1 else 1
                last = b.block(f"stage{s}.{i}", last, channels, width * multiple, stride)
                channels = width * multiple
            stages.append(last)
        return b.exits(stages, width, channels, classes, hidden and hidden * width)

    return build


def _vgg16(b: _Builder, width: int, classes: int) -> tuple[Branch, ...]:
    """Thirteen 3 x 3 convolutions, average pooling between stages, branches after stages 2, 3 and 4."""
    last, stages = INPUT, []
    for s, (count, multiple) in enumerate(((2, 1), (2, 2), (3, 4), (3, 8), (3, 8)), start=1):
        if s > 1:
            last = b.pool(f"pool{s - 1}", last)
        for i in range(1, count + 1):
            last = b.conv(f"stage{s}.{i}", last, width * multiple, 3, part="stem" if s == i == 1 else "backbone")
        stages.append(last)
    return b.exits(stages[1:], width, 8 * width, classes)


def _digits_cnn(b: _Builder, width: int, classes: int) -> tuple[Branch, ...]:
    """Three 3 x 3 convolutions of stride 1, 2 and 2, branches after the first two."""
    one = b.conv("stem", INPUT, width, 3, part="stem")
    two = b.conv("stage2", one, 2 * width, 3, 2)
    three = b.conv("stage3", two, 4 * width, 3, 2)
    return b.exits([one, two, three], width, 4 * width, classes)


_ZOO: dict[str, tuple[Builder, int, tuple[int, int, int], int]] = {
    # name: builder, width, input shape, classes
    "digits_cnn": (_digits_cnn, 16, (1, 8, 8), 10),
    "resnet18": (_residual((2, 2, 2, 2), (1, 2, 4, 8)), 64, (3, 32, 32), 10),
    "resnet34": (_residual((3, 4, 6, 3), (1, 2, 4, 8)), 64, (3, 32, 32), 10),
    "resnet19": (_residual((3, 3, 2), (1, 2, 4), hidden=2), 128, (3, 32, 32), 10),
    "resnet20": (_residual((3, 3, 3), (1, 2, 4)), 16, (3, 32, 32), 10),
    "vgg16": (_vgg16, 64, (3, 64, 64), 200),
}

ZOO: tuple[str, ...] = tuple(_ZOO)
"""Names that `network` knows."""


def network(
    name: str,
    *,
    classes: int | None = None,
    input_shape: tuple[int, int, int] | None = None,
    width: int | None = None,
    event: bool = False,
) -> Network:
    """Build a network of the zoo.

    Args:
        name: one of `ZOO`.
        classes: K >= 2; the default is that of the network's usual data set.
        input_shape: (C, H, W) of one image or frame; likewise.
        width: channels of the first stage, >= 1; all other widths follow in proportion.
        event: whether samples are sequences of frames rather than static images.

    Raises:
        SpecError: the name is unknown, or the sizes do not fit.
    """
    if name not in _ZOO:
        raise refuse("network", expected=f"one of {', '.join(ZOO)}", got=name)
    build, default_width, default_shape, default_classes = _ZOO[name]
    width = default_width if width is None else width
    classes = default_classes if classes is None else classes
    shape = default_shape if input_shape is None else input_shape
    require(width >= 1, "width", expected="a whole number >= 1", got=width)
    require(classes >= 2, "classes", expected="a whole number >= 2", got=classes)
    require(min(shape) >= 1, "input_shape", expected="three sizes >= 1", got=shape)
    builder = _Builder(shape)
    exits = build(builder, width, classes)
    return Network(name=name, input_shape=shape, event=event, layers=tuple(builder.layers), exits=exits)
