"""The spiking twin as a Python file with one pure function for jax, and the arrays that it takes; it needs jax alone."""

from __future__ import annotations

from twinspike.network import Activation, AvgPool, Conv, GlobalPool, Layer, Linear, Norm
from twinspike_training.export.pieces import Words, doc, filled, neuron_lines, reader, surrogate_line
from twinspike_training.export.statements import identifiers, statements
from twinspike_training.export.twin import SpikingTwin

_WORDS = Words(
    arrays="Arrays",
    float32='"<f4"',
    float64='"<f8"',
    array='np.frombuffer(content[first:last], formats[told["dtype"]])',
    sigmoid="jax.nn.sigmoid",
    numbers="{}.astype(z.dtype)",
    positive="jnp.maximum({}, 0)",
)


def source(twin: SpikingTwin, arrays_file: str) -> str:
    """The file's text; its arrays are those of `torch_source.arrays`.

    Args:
        twin: to write.
        arrays_file: name of the safetensors file beside it.
    """
    names, network = identifiers(twin.network), twin.network

    def call(layer: Layer, x: str) -> str:
        own = f'"{names[layer.name]}"' if layer.name in names else ""
        match layer:
            case Conv(stride=stride, padding=padding):
                return f"conv(p, {own}, {x}, stride={stride}, padding={padding})"
            case Norm():
                return f"norm(p, {own}, {x})"
            case Activation():
                return f"lif(p, {own}, {x})"
            case Linear():
                return f"linear(p, {own}, {x})"
            case AvgPool(kernel=kernel, stride=stride):
                return f"avg_pool({x}, {kernel}, {stride})"
            case GlobalPool():
                return f"{x}.mean((2, 3))"
            case _:
                raise AssertionError(layer)

    image = "images.reshape(-1, *images.shape[2:])" if network.event else "images"
    body = statements(network, call, {"image": image, "repeat": "repeat({})"})
    readout = f"logits.reshape(T, -1, {network.classes})." + ("sum(0)" if twin.method.readout == "sum" else "mean(0)")
    charge, reset = neuron_lines(twin.method.neuron, detached="jax.lax.stop_gradient(s)", array="")
    words = {
        "DOC": doc(twin, "jax", "p = load()\n    logits = jax.jit(network)(p, images)"),
        "CHARGE": charge,
        "H": surrogate_line(twin.method.neuron.surrogate, _WORDS),
        "RESET": reset,
        "BODY": "\n    ".join([*body, f"return {readout}"]),
        "READER": reader(_WORDS),
    }
    return filled(_TEMPLATE, twin, arrays_file, words)


_TEMPLATE = '''
import jax
import jax.numpy as jnp
import numpy as np

ARRAYS = @ARRAYS@
T = @T@  # time steps


def conv(p, name, x, *, stride, padding):
    """Cross-correlation without bias, (N, C, H, W)."""
    return jax.lax.conv_general_dilated(
        x, p[f"{name}.weight"], (stride, stride), [(padding, padding)] * 2,
        dimension_numbers=("NCHW", "OIHW", "NCHW"), precision=jax.lax.Precision.HIGHEST,
    )


def norm(p, name, x):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, per channel; mean and var are those that training has gathered."""
    parts = (p[f"{name}.{part}"] for part in ("gamma", "beta", "mean", "var"))
    gamma, beta, mean, var = (c.reshape(-1, *[1] * (x.ndim - 2)) for c in parts)
    return gamma * (x - mean) / jnp.sqrt(var + @EPS@) + beta


@jax.custom_jvp
def spike(u, threshold):
    """1 where u >= threshold, else 0; in place of the step's derivative stands the surrogate of the training."""
    return (u >= threshold).astype(u.dtype)


@spike.defjvp
def _spike_jvp(primals, tangents):
    z = primals[0] - primals[1]
    return spike(*primals), (@H@) * (tangents[0] - tangents[1])


def lif(p, name, x):
    """Leaky integrate-and-fire neurons over T steps: (T B, ...) currents to spikes, 0 or 1."""
    decay, threshold = p[f"{name}.decay"], p[f"{name}.threshold"]
    spikes, v = [], jnp.zeros_like(x[: len(x) // T])
    for x_t in jnp.split(x, T):
        u = @CHARGE@
        s = spike(u, threshold)  # equality fires
        v = @RESET@
        spikes.append(s)
    return jnp.concatenate(spikes)


def avg_pool(x, kernel, stride):
    """Mean over windows, without padding."""
    window, strides = (1, 1, kernel, kernel), (1, 1, stride, stride)
    return jax.lax.reduce_window(x, np.zeros((), x.dtype), jax.lax.add, window, strides, "VALID") / kernel**2


def linear(p, name, x):
    """W x + b, (N, F)."""
    return jnp.dot(x, p[f"{name}.weight"].T, precision=jax.lax.Precision.HIGHEST) + p[f"{name}.bias"]


def repeat(x):
    """What is the same at every step, (B, ...), with time in the batch, (T B, ...)."""
    return jnp.concatenate([x] * T)


def network(p, images):
    """images, @INPUT@, to logits, (B, @K@).

    p: arrays by name, as `load` gives them.
    """
    @BODY@


def load(path=Path(__file__).with_name(ARRAYS)):
    """The trained arrays by name; float64 needs jax_enable_x64."""
    return {name: jnp.asarray(value) for name, value in read(path).items()}


@READER@'''
