"""What is wanted of the implementation's speed and memory, and where among the results each number is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Result = dict[str, Any]
Row = dict[str, Any]


class Target(NamedTuple):
    """One number that is wanted."""

    what: str
    source: str
    """File of results, without its ending."""
    value: Callable[[Result], float]
    """Raises KeyError where the file does not have it."""
    limit: float
    unit: str
    at_most: bool = True
    """Whether less is better."""


def find(result: Result, **wanted: Any) -> Row:
    """The row with these values; KeyError if there is none."""
    for row in result["rows"]:
        if all(row.get(key) == value for key, value in wanted.items()):
            return dict(row)
    raise KeyError(str(wanted))


def part(result: Result, name: str, *path: str) -> Any:
    """A value of one part of a GPU run; KeyError if the part did not get there."""
    value: Any = result["parts"][name]
    for key in path:
        value = value[key]
    return value


def _lif(variant: str, steps: int) -> Callable[[Result], float]:
    return lambda result: float(find(result, variant=variant, T=steps)["ns"]["median"])


def _worst_option(backend: str) -> Callable[[Result], float]:
    return lambda result: max(
        float(row["to_first"]["median"]) for row in result["rows"] if row["variant"].startswith(f"{backend}:")
    )


def _against_authors(variant: str) -> Callable[[Result], float]:
    return lambda result: float(find(result, variant=variant)["authors_over_this"]["median"])


def _apart(result: Result) -> float:
    ratio = float(find(result, variant="jax")["this_over_torch"]["median"])
    return max(ratio, 1 / ratio)


def _saved(backend: str, recompute: bool = False) -> Callable[[Result], float]:
    form = {"variant": backend, "precision": "bf16-mixed", "recompute": recompute}
    return lambda result: float(find(result, **form)["saved_per_image"])


def _recomputed(backend: str) -> Callable[[Result], float]:
    return lambda result: _saved(backend, True)(result) / _saved(backend)(result)


def _images_per_core(result: Result) -> float:
    row = find(result, augmentation="with autoaugment", workers=0)
    return float(row["images_per_core_second"]["median"])


def _suite(backend: str, profile: str) -> Callable[[Result], float]:
    return lambda result: float(find(result, backend=backend, profile=profile, cache="cold")["seconds"]["median"])


def _gpu_verdicts(result: Result) -> float:
    verdicts = [value.get("verdict") for name, value in result["parts"].items() if name.startswith("conformance ")]
    passed: int = sum(verdict == "pass" for verdict in verdicts)
    return 6 - passed


def _sentinels(result: Result) -> float:
    caught: int = sum(part(result, f"sentinel {backend}", "status") == "ok" for backend in ("torch", "jax"))
    return 2 - caught


def _unequal(result: Result) -> float:
    return sum(len(part(result, f"exact {backend}", "differing")) for backend in ("torch", "jax"))


def _gpu_lif(backend: str) -> Callable[[Result], float]:
    return lambda result: float(part(result, f"lif {backend}", "float32", "share_of_copy"))


TORCH = ("torch compiled", "torch eager", "torch graphs")
OURS = (*TORCH, "jax")


def _gpu_epoch(result: Result, key: str = "epoch_seconds", modes: tuple[str, ...] = OURS) -> float:
    known = [value for name, value in result["parts"].items() if name.startswith(tuple(f"joint {mode} " for mode in modes))]
    found = [float(value[key]) for value in known if key in value]
    if not found:
        raise KeyError(f"{key} of {', '.join(modes)}")
    return min(found)


def _gpu_against_authors(result: Result) -> float:
    key = "epoch_seconds_without_data"  # the authors' code is given no data pipeline but its own
    return _gpu_epoch(result, key, ("authors",)) / _gpu_epoch(result, key)


def _gpu_apart(result: Result) -> float:
    ratio = _gpu_epoch(result, modes=("jax",)) / _gpu_epoch(result, modes=TORCH)
    return max(ratio, 1 / ratio)


TARGETS: tuple[Target, ...] = (
    *(
        Target(f"LIF, {backend}, T = {steps}, two threads", "lif_methods_2", _lif(backend, steps), limit, "ns")
        for backend in ("torch", "jax")
        for steps, limit in ((4, 1.5), (16, 1.5), (100, 2.0))
    ),
    *(
        Target(f"LIF, {backend}, slowest option over the default", "lif_options_2", _worst_option(backend), 1.5, "times")
        for backend in ("torch", "jax")
    ),
    *(
        Target(f"Joint step, authors / {backend}, {n} thread(s)", f"step_{n}", _against_authors(backend), 2.5, "times", False)
        for backend in ("torch", "jax")
        for n in (1, 2)
    ),
    *(Target(f"Joint step, torch and jax apart, {n} thread(s)", f"step_{n}", _apart, 1.25, "times") for n in (1, 2)),
    *(
        Target(f"Kept for backward per image, {backend}, bf16", f"memory_{backend}_cpu", _saved(backend), 20.0, "MiB")
        for backend in ("torch", "jax")
    ),
    *(
        Target(f"The same with recompute, over without, {backend}", f"memory_{backend}_cpu", _recomputed(backend), 0.5, "times")
        for backend in ("torch", "jax")
    ),
    Target(
        "Augmented images per second and core (15,000 on 16)", "data_pipeline", _images_per_core, 15_000 / 16, "images/s", False
    ),
    *(
        Target(f"Suite, {backend}, {profile}, compilers' caches empty", "conformance_cpu", _suite(backend, profile), limit, "s")
        for backend in ("numpy", "torch", "jax")
        for profile, limit in (("smoke", 15.0), ("ci", 90.0))
    ),
    Target("GPU: suite's runs that do not pass, of 6", "gpu", _gpu_verdicts, 0, ""),
    Target("GPU: TF32 under the name of f32-ieee not caught, of 2", "gpu", _sentinels, 0, ""),
    Target("GPU: arrays of the exact lane unlike the CPU's", "gpu", _unequal, 0, ""),
    *(
        Target(
            f"GPU: LIF, {backend}, 64 M neurons, share of copy bandwidth", "gpu", _gpu_lif(backend), 0.75, "", False
        )
        for backend in ("torch", "jax")
    ),
    Target("GPU: epoch of CIFAR-10, bf16, data included", "gpu", _gpu_epoch, 5.0, "s"),
    Target("GPU: epoch, authors / best of ours", "gpu", _gpu_against_authors, 3.0, "times", False),
    Target("GPU: epoch, torch and jax apart", "gpu", _gpu_apart, 1.2, "times"),
)  # fmt: skip

REASONS: dict[str, str] = {
    "LIF, torch, T = 4, two threads": "Python and autograd take about as long as the kernel",
}
"""Target -> why it is missed, as far as known; printed only while it is."""
