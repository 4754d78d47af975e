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
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from apart import Apart, Made
from measure import header, ratio, spread, take_timed_turns, versions, write
from numpy.typing import NDArray

NEURONS = 65_536
ROUNDS = 15
SLICE = 0.02
"""Seconds that a variant has in each turn."""
PEERS = ("spikingjelly", "snntorch", "norse", "spyx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=tuple(TABLES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--steps", type=int, nargs="*", help="T; default: 4 16 100, of options and neurons 4")
    parser.add_argument("--neurons", type=int, default=NEURONS)
    parser.add_argument("--seconds", type=float, default=20.0, help="for the turns of one comparison")
    parser.add_argument("--only", nargs="*", default=[], help="names of the variants, or of the backends, to run")
    options = parser.parse_args()
    if options.clock == "cpu" and options.threads > 1:
        sys.exit("--clock cpu: expected one thread, since it adds up what all threads take")
    result = header("lif", options.clock) | {"table": options.table, "threads": options.threads, "unit": "ns per neuron and step"}
    from neurons import kernels

    result |= {"kernels": kernels()}
    result["versions"] |= versions(PEERS)
    result["rows"] = []
    for row in TABLES[options.table](options):
        result["rows"].append(row)
        print(f"{row['variant']:<44} T = {row['T']:<4} N = {row['neurons']:<8} {row['ns']['median']:8.3f} ns", flush=True)
    print(write(f"lif_{options.table}_{options.threads}", result))


def methods(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every implementation; ratios are to the first."""
    from neurons import variants

    names = [name for name in variants(options.threads) if not options.only or name in options.only]
    for steps in options.steps or (4, 16, 100):
        yield from timed(make_methods, names, options, steps, options.neurons, True)


def neuron_options(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Each option of the neuron in both backends; ratios are to the default of the same backend."""
    for steps in options.steps or (4,):
        for backend in ("torch", "jax"):
            if not options.only or backend in options.only:
                names = [f"{backend}: {name}" for name in every_option()]
                yield from timed(make_options, names, options, steps, options.neurons)


def sizes(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """From what fits a core's cache to what fits none."""
    names = options.only or ["torch", "jax", "C loop"]
    for steps in options.steps or (4,):
        for power in range(10, 23, 2):
            yield from timed(make_methods, names, options, steps, 2**power, False)


TABLES: dict[str, Callable[[argparse.Namespace], Iterator[dict[str, Any]]]] = {
    "methods": methods,
    "options": neuron_options,
    "neurons": sizes,
}


def timed(make: Callable[..., Made], names: list[str], options: argparse.Namespace, steps: int, *rest: Any) -> Iterator[Any]:
    """A row per variant, from turns of all of them, each framework in a process of its own."""
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(family(name), []).append(name)
    processes = [Apart(options.threads, options.clock, make, own, options.threads, steps, *rest) for own in families.values()]
    facts = {name: known for process in processes for name, known in process.facts.items()}
    timers = {name: process.timer(name) for process in processes for name in process.facts}
    in_order = {name: timers[name] for name in names}
    try:
        taken = take_timed_turns(in_order, rounds=ROUNDS, slice_seconds=SLICE, seconds=options.seconds)
    finally:
        for process in processes:
            process.end()
    for name, values in taken.items():
        neurons = facts[name].pop("neurons")
        yield {
            "variant": name,
            "T": steps,
            "neurons": neurons,
            "ns": spread(values, 1e9 / (steps * neurons)),
            "to_first": ratio(values, taken[names[0]]),
        } | facts[name]


def family(name: str) -> str:
    """Whose threads and memory a variant works with."""
    return "jax" if name == "spyx" or name.startswith("jax") else "C" if name == "C loop" else "torch"


def make_methods(names: list[str], threads: int, steps: int, neurons: int, checked: bool) -> Made:
    """Implementations by name, and whether their spikes are the reference's."""
    from neurons import variants

    known, (x, g) = variants(threads), currents(steps, neurons)
    want = reference_spikes(x) if checked else None
    made = {}
    for name in names:
        runner, facts = known[name].make(x, g), {"neurons": x[0].size}
        if want is not None:
            equal = share(runner.spikes(), want)
            facts |= {"settings": known[name].settings, "differs": known[name].differs, "equal_spikes": equal}
        made[name] = runner.call, facts
    return made


def make_options(names: list[str], threads: int, steps: int, neurons: int) -> Made:
    """Options of the neuron by name, after that of a backend."""
    from neurons import our_jax, our_torch

    x, g = currents(steps, neurons)
    made = {}
    for name in names:
        backend, _, option = name.partition(": ")
        make = our_torch if backend == "torch" else our_jax
        made[name] = make(every_option()[option])(x, g).call, {"neurons": x[0].size}
    return made


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
