"""The spiking twin as a Python file with one `torch.nn.Module`, and the arrays that it reads; it needs torch alone."""

from __future__ import annotations

from twinspike.network import Activation, AvgPool, Conv, GlobalPool, Layer, Linear, Norm
from twinspike_training.export.pieces import Words, doc, filled, neuron_lines, reader, surrogate_line
from twinspike_training.export.statements import identifiers, statements
from twinspike_training.export.twin import Array, SpikingTwin

_WORDS = Words(
    arrays="Tensors",
    float32="torch.float32",
    float64="torch.float64",
    array='torch.frombuffer(content[first:last], dtype=formats[told["dtype"]])',
    sigmoid="torch.sigmoid",
    numbers="{}.to(z.dtype)",
    positive="{}.clamp(min=0)",
)


def arrays(twin: SpikingTwin) -> dict[str, Array]:
    """Names as in the module's `state_dict`."""
    names = identifiers(twin.network)
    found: dict[str, Array] = {}
    for layer in twin.network.layers:
        own = [part for part in ("weight", "bias", "gamma", "beta", "mean", "var") if f"{layer.name}.{part}" in twin.arrays]
        found |= {f"{names[layer.name]}.{part}": twin.of(layer.name, part) for part in own}
        if isinstance(layer, Activation):
            rank = len(twin.shapes[layer.name])
            for part in ("decay", "threshold"):
                value = twin.quantity(layer.name, part)
                found[f"{names[layer.name]}.{part}"] = value.reshape(-1, *(1,) * (rank - 1)) if value.ndim else value
    return found


def source(twin: SpikingTwin, arrays_file: str) -> str:
    """The file's text.

    Args:
        twin: to write.
        arrays_file: name of the safetensors file beside it.
    """
    names, network = identifiers(twin.network), twin.network

    def call(layer: Layer, x: str) -> str:
        match layer:
            case AvgPool(kernel=kernel, stride=stride):
                return f"F.avg_pool2d({x}, {kernel}, {stride})"
            case GlobalPool():
                return f"{x}.mean((2, 3))"
            case _:
                return f"self.{names[layer.name]}({x})"

    image = "images.flatten(0, 1)" if network.event else "images"
    body = statements(network, call, {"image": image, "repeat": "repeat({})"})
    made = [f"self.{names[layer.name]} = {_made(twin, layer)}" for layer in network.layers if layer.name in names]
    readout = "logits.unflatten(0, (T, -1))." + ("sum(0)" if twin.method.readout == "sum" else "mean(0)")
    charge, reset = neuron_lines(twin.method.neuron, detached="s.detach()", array="self.")
    words = {
        "DOC": doc(twin, "torch", "net = load()\n    logits = net(images)"),
        "CHARGE": charge,
        "H": surrogate_line(twin.method.neuron.surrogate, _WORDS),
        "RESET": reset,
        "MADE": "\n        ".join(made),
        "BODY": "\n        ".join([*body, f"return {readout}"]),
        "READER": reader(_WORDS),
    }
    return filled(_TEMPLATE, twin, arrays_file, words)


def _made(twin: SpikingTwin, layer: Layer) -> str:
    shapes = twin.shapes
    match layer:
        case Conv(kernel=kernel, stride=stride, padding=padding):
            channels = f"{twin.of(layer.name, 'weight').shape[1]}, {layer.out_channels}"
            return f"nn.Conv2d({channels}, {kernel}, stride={stride}, padding={padding}, bias=False)"
        case Norm():
            return f"Norm({shapes[layer.name][0]})"
        case Linear():
            return f"nn.Linear({shapes[layer.input][0]}, {layer.out_features})"
        case _:
            wide = [twin.quantity(layer.name, part).ndim for part in ("decay", "threshold")]
            count, rank = shapes[layer.name][0], len(shapes[layer.name])
            sizes = [repr((count, *(1,) * (rank - 1))) if n else "()" for n in wide]
            return f"LIF({', '.join(sizes)})"


_TEMPLATE = '''
import torch
from torch import nn
from torch.nn import functional as F

ARRAYS = @ARRAYS@
T = @T@  # time steps


class Norm(nn.Module):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, per channel; mean and var are those that training has gathered."""

    def __init__(self, channels):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))

    def forward(self, x):
        gamma, beta, mean, var = (c.view(-1, *[1] * (x.ndim - 2)) for c in (self.gamma, self.beta, self.mean, self.var))
        return gamma * (x - mean) / torch.sqrt(var + @EPS@) + beta


class Spike(torch.autograd.Function):
    """1 where u >= threshold, else 0; in place of the step's derivative stands the surrogate of the training."""

    @staticmethod
    def forward(ctx, z, fires):
        ctx.save_for_backward(z)
        return fires.to(z.dtype)

    @staticmethod
    def backward(ctx, g):
        (z,) = ctx.saved_tensors
        return g * (@H@), None


class LIF(nn.Module):
    """Leaky integrate-and-fire neurons over T steps: (T B, ...) currents to spikes, 0 or 1."""

    def __init__(self, decay, threshold):
        super().__init__()
        self.register_buffer("decay", torch.zeros(decay))
        self.register_buffer("threshold", torch.ones(threshold))

    def forward(self, x):
        spikes, v = [], torch.zeros_like(x[: len(x) // T])
        for x_t in x.chunk(T):
            u = @CHARGE@
            s = Spike.apply(u - self.threshold, u >= self.threshold)  # equality fires
            v = @RESET@
            spikes.append(s)
        return torch.cat(spikes)


def repeat(x):
    """What is the same at every step, (B, ...), with time in the batch, (T B, ...)."""
    return torch.cat([x] * T)


class Network(nn.Module):
    """images, @INPUT@, to logits, (B, @K@)."""

    def __init__(self):
        super().__init__()
        @MADE@

    def forward(self, images):
        @BODY@


def load(path=Path(__file__).with_name(ARRAYS)):
    """The trained network, in the format of its arrays, on the CPU."""
    arrays = read(path)
    net = Network().to(next(iter(arrays.values())).dtype)
    net.load_state_dict(arrays)
    return net.eval()


@READER@'''
