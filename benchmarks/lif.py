"""How long a LIF layer takes, forward and backward: nanoseconds per neuron and time step, float32.

    python benchmarks/lif.py methods --threads 1     every implementation at T = 4, 16 and 100
    python benchmarks/lif.py options --threads 1     every surrogate, reset and learned quantity, against the default
    python benchmarks/lif.py neurons --threads 1     from a thousand neurons to four million

Results go to `results/lif_TABLE_THREADS.json`. Other libraries (`peers.txt`) are measured where they are
installed. `--clock cpu` counts the process's time rather than the clock's: for a machine that others use,
and one thread alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from measure import header, ratio, restrict, spread, take_turns, versions, write
from numpy.typing import NDArray

NEURONS = 65_536
ROUNDS = 15
SLICE = 0.02
"""Seconds that a variant has in each turn."""
PEERS = ("spikingjelly", "snntorch", "norse", "spyx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("methods", "options", "neurons"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--steps", type=int, nargs="*", help="T; default: 4 16 100, of options and neurons 4")
    parser.add_argument("--neurons", type=int, default=NEURONS)
    parser.add_argument("--seconds", type=float, default=25.0, help="for the turns of one comparison")
    parser.add_argument("--only", nargs="*", default=[], help="names of the variants to run")
    options = parser.parse_args()
    if options.clock == "cpu" and options.threads > 1:
        sys.exit("--clock cpu: expected one thread, since it adds up what all threads take")
    result = header("lif", options.clock) | {"table": options.table, "threads": options.threads, "unit": "ns per neuron and step"}
    restrict(options.threads)
    from neurons import kernels

    result |= {"kernels": kernels()}
    result["versions"] |= versions(PEERS)
    result["rows"] = []
    for row in {"methods": methods, "options": neuron_options, "neurons": sizes}[options.table](options):
        result["rows"].append(row)
        print(f"{row['variant']:<44} T = {row['T']:<4} N = {row['neurons']:<8} {row['ns']['median']:8.3f} ns", flush=True)
    print(write(f"lif_{options.table}_{options.threads}", result))


def methods(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every implementation; ratios are to the first."""
    from neurons import variants

    known = {k: v for k, v in variants(options.threads).items() if not options.only or k in options.only}
    for steps in options.steps or (4, 16, 100):
        x, g = currents(steps, options.neurons)
        runners = {name: variant.make(x, g) for name, variant in known.items()}
        want = reference_spikes(x)
        facts = {
            name: {"settings": known[name].settings, "differs": known[name].differs, "equal_spikes": share(runner.spikes(), want)}
            for name, runner in runners.items()
        }
        for name, found in timed({name: runner.call for name, runner in runners.items()}, options, x).items():
            yield found | facts[name]


def neuron_options(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Each option of the neuron in both backends; ratios are to the default of the same backend."""
    from neurons import our_jax, our_torch

    for steps in options.steps or (4,):
        x, g = currents(steps, options.neurons)
        for backend, make in (("torch", our_torch), ("jax", our_jax)):
            if not options.only or backend in options.only:
                calls = {f"{backend}: {name}": make(neuron)(x, g).call for name, neuron in every_option().items()}
                yield from timed(calls, options, x).values()


def sizes(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """From what fits a core's cache to what fits none."""
    from neurons import variants

    names = options.only or ["torch", "jax", "C loop"]
    known = {k: v for k, v in variants(options.threads).items() if k in names}
    for steps in options.steps or (4,):
        for power in range(10, 23, 2):
            x, g = currents(steps, 2**power)
            yield from timed({name: v.make(x, g).call for name, v in known.items()}, options, x).values()


def timed(calls: Mapping[str, Any], options: argparse.Namespace, x: NDArray[np.float32]) -> dict[str, dict[str, Any]]:
    """A row per variant, from turns of all of them."""
    taken = take_turns(calls, rounds=ROUNDS, slice_seconds=SLICE, seconds=options.seconds, clock=options.clock)
    first = next(iter(taken.values()))
    return {
        name: {
            "variant": name,
            "T": len(x),
            "neurons": x[0].size,
            "ns": spread(values, 1e9 / x.size),
            "to_first": ratio(values, first),
        }
        for name, values in taken.items()
    }


def every_option() -> dict[str, Any]:
    """The default first; every surrogate with each reset, then what else changes the computation."""
    import twinspike as ts

    surrogates = (ts.Rectangle(), ts.Triangle(), ts.Sigmoid(), ts.Arctan(), ts.FastSigmoid(), ts.Tanh())
    found = {
        f"{type(surrogate).__name__.lower()}, {reset} reset": ts.Neuron(surrogate=surrogate, reset=reset)
        for reset in ("hard", "soft")
        for surrogate in surrogates
    }
    found |= {"v_reset -0.25": ts.Neuron(v_reset=-0.25), "reset detached": ts.Neuron(detach_reset=True)}
    found |= {"decay_input": ts.Neuron(decay_input=True)}
    for scope in ("layer", "channel"):
        found[f"decay learned per {scope}"] = ts.Neuron(decay_scope=scope)
        found[f"threshold learned per {scope}"] = ts.Neuron(threshold_scope=scope)
    return found


def currents(steps: int, neurons: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(currents, gradient of the spikes), (T, 16, neurons / 16), of which about a third fires."""
    rng = np.random.default_rng(0)
    shape = (steps, 16, neurons // 16)
    x, g = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    return np.float32(0.5) * x + np.float32(0.25), g


def reference_spikes(x: NDArray[np.float32]) -> NDArray[np.float64]:
    from twinspike import Neuron
    from twinspike.reference.neuron import lif

    return np.asarray(lif(Neuron(), x.astype(np.float64)).s)


def share(spikes: NDArray[np.float32], want: NDArray[np.float64]) -> float:
    """Share of the spikes that are the reference's; 1 only if all are."""
    return float((spikes == want).mean())


if __name__ == "__main__":
    main()
