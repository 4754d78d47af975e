"""The spiking twin as an ONNX graph, opset 18, float32, time unrolled: neurons step by step, all else with time in the batch.

A static image's layers up to the first neuron are the same at each step and stand there once. Each operation is a clause's,
so that a runtime which computes them as they stand is within the clauses' bounds. Norms are therefore written as a difference,
a quotient, a product and a sum: ONNX's own BatchNormalization is folded into a product and a sum by onnxruntime, which loses
what is left of x - mean where the two are close. `folded` asks for fewer operations at that price.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from twinspike.network import INPUT, Activation, Add, AvgPool, Conv, GlobalPool, Layer, Linear, Norm
from twinspike_training.export.twin import Array, SpikingTwin

OPSET = 18
"""The first in which Split takes a number of parts."""

IR = 10
"""Version of the file format, which runtimes from 2024 on read."""


_TAKEN = ("images", "logits")
"""Names of the model's own input and output, which a layer may have too."""


def model(twin: SpikingTwin, *, folded: bool = False, traced: bool = False) -> onnx.ModelProto:
    """The checked model: `images`, (B, C, H, W) or of events (T, B, C, H, W), to `logits`, (B, K), B being free.

    Args:
        twin: to write.
        folded: whether a norm behind a convolution that nothing else reads becomes part of it (`SpikingTwin.folded`).
        traced: whether each layer's output, LAYER, and each neuron's potential before its reset, LAYER:u, are outputs too;
            with time in the batch, (T B, ...), or (B, ...) where all steps have one value.

    Raises:
        onnx.checker.ValidationError: a fault of this module.
    """
    graph = _Graph(twin, twin.foldable if folded else {})
    for layer in twin.network.layers:
        graph.add(layer)
    graph.read_out(twin.network.exits[-1].head)
    shape: list[Any] = ["B", *twin.network.input_shape]
    images = helper.make_tensor_value_info(
        "images", TensorProto.FLOAT, [twin.time_steps, *shape] if twin.network.event else shape
    )
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", twin.network.classes])]
    if traced:
        shapes = {name: twin.shapes[name] for name in graph.source if name != INPUT and name not in graph.within.values()}
        shapes |= {f"{name}:u": shapes[name] for name in twin.network.activations}
        outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, *size]) for name, size in shapes.items()]
    made = helper.make_model(
        helper.make_graph(graph.nodes, twin.network.name, [images], outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="twinspike",
    )
    helper.set_model_props(made, {key: str(value) for key, value in twin.facts.items()})
    onnx.checker.check_model(made, full_check=True)
    return made


class _Graph:
    """Collects nodes; a value's name is its layer's."""

    def __init__(self, twin: SpikingTwin, within: dict[str, str]) -> None:
        self.twin, self.steps, self.within = twin, twin.time_steps, within
        """`within`: norm -> the convolution that it is folded into."""
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.once: set[str] = set()
        """Values that are the same at every step and stand there once."""
        self.source = {INPUT: "images"}
        if twin.network.event:
            shape = self.constant("input:shape", np.array([-1, *twin.network.input_shape], np.int64))
            self.source[INPUT] = self.node("Reshape", ["images", shape], "input:frames")
        else:
            self.once.add("images")

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{kind}:{output}", **attributes))
        return output

    def constant(self, name: str, value: Array) -> str:
        value = value if value.dtype.kind == "i" else value.astype(np.float32)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def part(self, layer: str, part: str) -> str:
        return self.constant(f"{layer}.{part}", self.twin.of(layer, part))

    def add(self, layer: Layer) -> None:
        """Append one layer."""
        x, name = self.source[layer.input], layer.name
        out = self.source[name] = f"{name}/" if name in _TAKEN else name  # no layer's name has a slash
        if x in self.once and not isinstance(layer, Activation | Add):
            self.once.add(out)
        match layer:
            case Conv() if name in self.within.values():
                self.source[name] = x
            case Conv():
                self.convolution(layer, [x, self.part(name, "weight")], out)
            case Norm(input=conv) if name in self.within:
                weight, bias = self.twin.folded(conv, name)
                arrays = [self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)]
                self.convolution(self.twin.network.layer(conv), [x, *arrays], out)
            case Norm():
                self.norm(name, x, out)
            case Activation():
                self.neurons(name, x, out)
            case Add(other=other):
                pair = [x, self.source[other]]
                if not self.once.issuperset(pair):
                    pair = [self.repeated(value) for value in pair]
                else:
                    self.once.add(out)
                self.node("Add", pair, out)
            case AvgPool(kernel=kernel, stride=stride):
                self.node("AveragePool", [x], out, kernel_shape=[kernel] * 2, strides=[stride] * 2)
            case GlobalPool():
                pooled = self.node("GlobalAveragePool", [x], f"{name}:map")
                self.node("Flatten", [pooled], out, axis=1)
            case Linear():
                self.node("Gemm", [x, self.part(name, "weight"), self.part(name, "bias")], out, transB=1)

    def convolution(self, layer: Layer, inputs: list[str], output: str) -> None:
        assert isinstance(layer, Conv)
        sides = {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2, "pads": [layer.padding] * 4}
        self.node("Conv", inputs, output, **sides)

    def norm(self, layer: str, x: str, output: str) -> None:
        """gamma (x - mean)/sqrt(var + eps) + beta (clause BN-5), the root taken in float64 and rounded once."""
        wide = (-1, *(1,) * (len(self.twin.shapes[layer]) - 1))
        root = np.sqrt(self.twin.of(layer, "var").astype(np.float64) + self.twin.method.batch_norm.eps)
        values = {part: self.twin.of(layer, part) for part in ("mean", "gamma", "beta")} | {"root": root}
        named = {part: self.constant(f"{layer}.{part}", value.reshape(wide)) for part, value in values.items()}
        centred = self.node("Sub", [x, named["mean"]], f"{layer}:centred")
        scaled = self.node("Mul", [centred, named["gamma"]], f"{layer}:scaled")
        normal = self.node("Div", [scaled, named["root"]], f"{layer}:normal")
        self.node("Add", [normal, named["beta"]], output)

    def repeated(self, value: str) -> str:
        """A value with time in the batch."""
        if value not in self.once:
            return value
        name = f"{value}:repeated"
        if not any(name in node.output for node in self.nodes):
            self.node("Concat", [value] * self.steps, name, axis=0)
        return name

    def by_step(self, value: str) -> list[str]:
        """A value's T parts."""
        if value in self.once or self.steps == 1:
            return [value] * self.steps
        names = [f"{value}:{t}" for t in range(1, self.steps + 1)]
        self.nodes.append(helper.make_node("Split", [value], names, name=f"Split:{value}", axis=0, num_outputs=self.steps))
        return names

    def neurons(self, layer: str, x: str, output: str) -> None:
        """Charge, fire and reset, step by step (clauses LIF-1 to LIF-4)."""
        neuron = self.twin.method.neuron
        wide = (-1, *(1,) * (len(self.twin.shapes[layer]) - 1))

        def quantity(name: str, value: Array) -> str:
            return self.constant(f"{layer}.{name}", value.reshape(wide) if value.ndim else value)

        decay_value = self.twin.quantity(layer, "decay")
        decay, threshold = quantity("decay", decay_value), quantity("threshold", self.twin.quantity(layer, "threshold"))
        share = quantity("input_share", np.asarray(1 - decay_value, self.twin.dtype)) if neuron.decay_input else None
        v_reset = self.constant(f"{layer}.v_reset", np.asarray(neuron.v_reset)) if neuron.reset == "hard" else None
        u_s, s_s, v = [], [], None
        for t, part in enumerate(self.by_step(x), start=1):
            at = f"{layer}:{t}:"
            current = part if share is None else self.node("Mul", [part, share], f"{at}x")
            u = current if v is None else self.node("Add", [self.node("Mul", [v, decay], f"{at}kept"), current], f"{at}u")
            fires = self.node("GreaterOrEqual", [u, threshold], f"{at}fires")
            s = self.node("Cast", [fires], f"{at}s", to=TensorProto.FLOAT)
            u_s.append(u)
            s_s.append(s)
            if t == self.steps:
                break
            if v_reset is not None:
                v = self.node("Where", [fires, v_reset, u], f"{at}v")
            else:
                v = self.node("Sub", [u, self.node("Mul", [s, threshold], f"{at}spent")], f"{at}v")
        self.node("Concat", u_s, f"{layer}:u", axis=0)
        self.node("Concat", s_s, output, axis=0)

    def read_out(self, head: str) -> None:
        """Sum or mean of the head's output over time, in the order of time (clauses OUT-1, OUT-2)."""
        first, *others = self.by_step(self.source[head])
        total = first
        for t, part in enumerate(others, start=2):
            total = self.node("Add", [total, part], f"logits/{t}")
        if self.twin.method.readout == "mean":
            self.node("Div", [total, self.constant("logits/steps", np.asarray(self.steps, np.float32))], "logits")
        else:
            self.node("Identity", [total], "logits")
