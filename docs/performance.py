"""Makes the page of measurements from the files in benchmarks/results: what was wanted, what was measured, what is open.

Nothing is measured here. A number without its file is `not run`; one that misses its target stays on the page
with the reason that is known, until it is met.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from targets import REASONS, TARGETS, Result, find

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "benchmarks" / "results"
PLOT = DOCS / "images" / "scaling.svg"

Spread = dict[str, float]

COMMANDS = (
    "python -m pip install --no-deps -r benchmarks/peers.txt    # other libraries, optional",
    "python benchmarks/lif.py methods --threads 2",
    "python benchmarks/lif.py methods --threads 1",
    "python benchmarks/lif.py options --threads 2",
    "python benchmarks/lif.py neurons --threads 1",
    "python benchmarks/step.py --authors PATH --threads 1",
    "python benchmarks/step.py --authors PATH --threads 2",
    'python benchmarks/step.py --variants torch "torch compiled" --threads 1',
    "python benchmarks/memory.py --authors PATH",
    "python benchmarks/memory.py --backend jax --precisions bf16-mixed",
    "python benchmarks/data_pipeline.py",
    "python benchmarks/conformance.py --deep    # without --deep also at two sizes of the deep profile",
    "python benchmarks/scaling.py",
    "python benchmarks/scaling.py --plot",
    "python benchmarks/devices.py",
    "python benchmarks/traffic.py torch --save    # counts for a GPU, needs none",
    "tox run -e traffic -- --save    # compiles for a GPU, needs none",
    "python benchmarks/gpu.py --out DIR --authors PATH    # then copy DIR/gpu.json to benchmarks/results",
    "python docs/generate.py",
)


def load() -> dict[str, Result]:
    """Every file of results, by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}


def performance() -> str:
    """The page."""
    known = load()
    sections = (_targets, _neuron, _options, _sizes, _step, _memory, _pipeline, _conformance, _scaling, _devices, _gpu, _traffic)
    lines = [
        "# Performance\n",
        "Medians, with quartiles and number of turns; variants of one table took turns, and ratios are medians of the ratios",
        "within a turn. Tables of the neuron and of the joint step are measured with freed memory kept, for every variant,",
        "others' too, as `twinspike train` does ([memory](training.md#memory-and-compiling)); with malloc's own settings a layer",
        "takes up to four times as long in jax.",
        "*Under load* marks what was taken while the machine did other work: such numbers are there to be replaced. Every file",
        "of results names its machine, versions, date and load.\n",
    ]
    for section in sections:
        lines += [*section(known), ""]
    lines += [
        "## Measure\n",
        "In this order, each in a few minutes, on a machine that does nothing else:\n",
        "```console",
        *COMMANDS,
        "```\n",
        "`PATH` is a checkout of [the authors' code](https://github.com/yfguo91/Joint-A-SNN); `benchmarks/authors.py` says how",
        "it is driven. On a machine that others use, one thread with `--clock cpu` says the least wrong.",
    ]
    return "\n".join(lines) + "\n"


def _targets(known: dict[str, Result]) -> Iterator[str]:
    yield "## Targets\n"
    missed = []
    rows = []
    for target in TARGETS:
        bound = f"{'at most' if target.at_most else 'at least'} {_number(target.limit)} {target.unit}".rstrip()
        try:
            value = target.value(known[target.source])
        except (KeyError, ValueError):
            why = "not run" if target.source not in known else f"not in `{target.source}.json`"
            rows.append((target.what, bound, why, "", "open"))
            continue
        met = value <= target.limit if target.at_most else value >= target.limit
        ratio = _number(value / target.limit) if target.limit else ""
        load = ", under load" if known[target.source]["under_load"] else ""
        rows.append((target.what, bound, f"{_number(value)} {target.unit}".rstrip(), ratio, ("met" if met else "missed") + load))
        if not met:
            why = REASONS.get(target.what, "not explained yet")
            missed.append(f"- {target.what}: {_number(value)} {target.unit}, wanted {bound}; {why}.")
    yield from _table(("what", "target", "measured", "measured / target", ""), rows)
    if missed:
        yield from ("", "Missed, and open:\n", *missed)


def _neuron(known: dict[str, Result]) -> Iterator[str]:
    yield from (
        "## The neuron\n",
        "A LIF layer of 65,536 neurons, float32, forward and backward, nanoseconds per neuron and time step. The C loop is",
        "the floor: one pass over time per block of neurons, potentials computed again, nothing allocated.\n",
    )
    for threads in (2, 1):
        result = known.get(f"lif_methods_{threads}")
        yield f"{threads} thread(s): {_where(result)}\n"
        if result is None:
            continue
        steps = sorted({row["T"] for row in result["rows"]})
        rows = []
        for name in dict.fromkeys(row["variant"] for row in result["rows"]):
            found = {row["T"]: row for row in result["rows"] if row["variant"] == name}
            some = next(iter(found.values()))
            note = some["settings"] + (f"; differs: {some['differs']}" if some["differs"] else "")
            rows.append((name, *(_spread(found[t]["ns"]) if t in found else "" for t in steps), note))
        yield from (*_table(("", *(f"T = {t}" for t in steps), "what it is"), rows), "")


def _options(known: dict[str, Result]) -> Iterator[str]:
    result = known.get("lif_options_2") or known.get("lif_options_1")
    yield from ("### Options of the neuron\n", f"T = 4, {result['threads'] if result else 2} thread(s): {_where(result)}\n")
    if result is not None:
        names = dict.fromkeys(row["variant"].partition(": ")[2] for row in result["rows"])
        rows = []
        for name in names:
            cells = []
            for backend in ("torch", "jax"):
                try:
                    row = find(result, variant=f"{backend}: {name}")
                    cells += [_spread(row["ns"]), _number(row["to_first"]["median"])]
                except KeyError:
                    cells += ["not run", ""]
            rows.append((name, *cells))
        yield from _table(("", "torch, ns", "over default", "jax, ns", "over default"), rows)


def _sizes(known: dict[str, Result]) -> Iterator[str]:
    result = known.get("lif_neurons_1")
    yield from ("### Sizes of the layer\n", f"T = 4, 1 thread, ns per neuron and step: {_where(result)}\n")
    if result is not None:
        names = list(dict.fromkeys(row["variant"] for row in result["rows"]))
        sizes = sorted({row["neurons"] for row in result["rows"]})
        rows = [(f"{n:,}", *(_spread(find(result, variant=name, neurons=n)["ns"]) for name in names)) for n in sizes]
        yield from _table(("neurons", *names), rows)


def _step(known: dict[str, Result]) -> Iterator[str]:
    yield from (
        "## The joint step\n",
        "ResNet-18, CIFAR images, T = 4, B = 8, float32 on the CPU: loss, all gradients, SGD. The first step compiles.\n",
    )
    for name in ("step_1", "step_2", "step_compiled_1"):
        result = known.get(name)
        yield f"{name.rpartition('_')[2]} thread(s){', torch compiled' if 'compiled' in name else ''}: {_where(result)}\n"
        if result is not None:
            rows = [
                (
                    row["variant"], _spread(row["seconds"]), _number(row["first_seconds"]),
                    *(_spread(row[key]) if key in row else "" for key in ("authors_over_this", "this_over_torch")),
                )
                for row in result["rows"]
            ]  # fmt: skip
            yield from (*_table(("", "seconds a step", "first step, s", "authors / this", "this / torch"), rows), "")


def _memory(known: dict[str, Result]) -> Iterator[str]:
    yield from (
        "## Memory\n",
        "MiB per training image of ResNet-18, T = 4, as the difference of two batch sizes. *Saved* is what autograd packs for",
        "the backward pass, as unique storages, and what `jax.vjp` hands to it, as unique values; *held* is what of the forward",
        "pass is alive when the backward pass begins, found independently; *peak* is the temporary memory of jax's compiled",
        "step, backward included, where XLA keeps or computes again as it sees fit. On a CPU the peak does not follow what is",
        "saved: XLA computes in float32 copies of maps and kernels of 16 bits.\n",
    )
    keys = ("saved_per_image", "held_per_image", "peak_per_image")
    rows = []
    for name in ("memory_torch_cpu", "memory_jax_cpu"):
        result = known.get(name)
        yield f"{name.split('_')[1]}: {_where(result)}\n"
        for row in result["rows"] if result else ():
            sizes = [_number(row[key]) if key in row else "" for key in keys]
            status = "" if row["status"] == "ok" else row["status"]
            rows.append((row["variant"], row["precision"], "yes" if row["recompute"] else "no", *sizes, status))
    yield from _table(("", "precision", "recompute", "saved", "held", "peak", ""), rows)


def _pipeline(known: dict[str, Result]) -> Iterator[str]:
    result = known.get("data_pipeline")
    yield from (
        "## The data\n",
        "Augmented CIFAR images per second by kind and number of workers; per core: per second of processor time, where all",
        "is done in one process; left: speed of a training thread beside the workers, as a share of its speed alone.\n",
        f"{_where(result)}\n",
    )
    if result is not None:
        rows = [
            (
                row["augmentation"], f"{row['workers']} {row['worker']}" if row["workers"] else "none",
                _spread(row["images_per_second"]),
                _spread(row["images_per_core_second"]) if "images_per_core_second" in row else "",
                f"{row['share_left']:.0%}" if "share_left" in row else "",
            )
            for row in result["rows"]
        ]  # fmt: skip
        yield from _table(("augmentation", "workers", "images/s", "per core", "left"), rows)


def _conformance(known: dict[str, Result]) -> Iterator[str]:
    result = known.get("conformance_cpu")
    yield from (
        "## The conformance suite\n",
        "Seconds of a whole run in a fresh process; cold runs find the compilers' caches on disk empty. Shares of starting,",
        "compiling (the suite's estimate) and running.\n",
        f"{_where(result)}\n",
    )
    if result is None:
        return
    runs = [row for row in result["rows"] if "seconds" in row]
    rows = [
        (
            *(row[key] for key in ("backend", "profile", "cache")),
            _spread(row["seconds"]),
            *(f"{row['shares'][key]:.0%}" for key in ("start", "compile", "run")),
            ", ".join(row["failed"]) or "none",
        )
        for row in runs
    ]
    yield from _table(("backend", "profile", "caches", "seconds", "start", "compile", "run", "failed"), rows)
    deep = [row for row in result["rows"] if row["profile"] == "deep"]
    for row in deep:
        first, further = (_number(row[key]) for key in ("milliseconds_per_example", "milliseconds_per_further_example"))
        few, many = row["examples"]
        yield f"\ndeep, {row['backend']}: {first} ms an example up to {few:,}, {further} ms for each further one up to {many:,}."


def _scaling(known: dict[str, Result]) -> Iterator[str]:
    result = known.get("scaling")
    yield from ("## How the cost grows\n", f"{_where(result)}\n")
    if result is not None:
        if PLOT.is_file():
            check_plot(PLOT.read_text(encoding="utf-8"))
            yield "![Time of a joint step by time steps, batch, width and network, with the cost model](images/scaling.svg)\n"
        yield from (
            "The dashed line is the [cost model](method.md)'s arithmetic through the sweep's largest point; what lies above it",
            "is not arithmetic: traffic, and the fixed cost of a step. The last panel is the LIF layer alone.\n",
        )
        rows = [
            (row["sweep"].replace("_", " "), row["at"], _number(row["gflop"]), _spread(row["seconds"])) for row in result["rows"]
        ]
        yield from _table(("varied", "at", "GFLOP a step", "seconds a step"), rows)


def _devices(known: dict[str, Result]) -> Iterator[str]:
    result = known.get("devices")
    yield from ("## Over two processes\n", f"{_where(result)}\n")
    if result is None:
        return
    base = result["base"]
    yield from (
        f"ResNet-18 of width {base['width']}, T = {base['time_steps']}, {result['precision']}, a batch of",
        f"{base['batch_size']} that the processes share; each has a core and a thread. Both variants are running and take turns.",
        "Processor time is that of all processes: what it is more than one process's is what the ranks' talk, and smaller parts,",
        "cost; by the clock, a machine that others use gives two processes less than two cores.\n",
    )
    rows = [
        (row["backend"], row["variant"], *(_spread(row[key]) for key in ("images_per_second", "faster", "cpu_ms_per_image")))
        for row in result["rows"]
    ]
    yield from _table(("backend", "", "images/s", "faster", "processor ms an image"), rows)


def check_plot(svg: str) -> None:
    """Refuse a plot of results that are no longer there; ValueError says what to run."""
    drawn = re.findall(r"(\w+)\.json ([0-9a-f]{64})", svg)
    fresh = drawn and all(hashlib.sha256((RESULTS / f"{name}.json").read_bytes()).hexdigest() == digest for name, digest in drawn)
    if not fresh:
        raise ValueError("docs/images/scaling.svg is out of date: run python benchmarks/scaling.py --plot")


def _gpu(known: dict[str, Result]) -> Iterator[str]:
    result = known.get("gpu")
    yield from (
        "## On a GPU\n",
        "A visit takes ten minutes on a machine with torch, jax and a CUDA device, without a network, and nothing is installed",
        "there. Carried are a checkout, wheels of what the machine lacks for its version of Python (as a rule msgspec and",
        "beartype), and, for an epoch of real images, CIFAR-10 or CIFAR-100 as its authors' binary files, or packed in any way",
        "and unpacked there. One command, to be tried on a CPU first, with `--device cpu --tiny`:\n",
        "```console",
        "python benchmarks/gpu.py --out DIR --wheels WHEELS --data DATA --seconds 540",
        "```\n",
        "Back come `gpu.json`, whole after every number, `gpu.log` and `reports.tar.gz`. What was compiled is kept in",
        "`build/gpu` for a second call on the same machine, which may ask for some of the parts by `--parts`.\n",
        f"{_where(result)}\n",
    )
    if result is None:
        yield "`benchmarks/gpu.py` has not been run on a GPU: every GPU row above is open, and nothing is claimed."
        return
    rows = []
    for name, found in result["parts"].items():
        step, epoch = found.get("step_seconds"), found.get("epoch_seconds", found.get("epoch_seconds_without_data"))
        facts = [f"step {_spread(step)} s" if step else "", f"epoch {_number(epoch)} s" if epoch else ""]
        facts.append(f"peak {_number(found['peak_mib'])} MiB" if "peak_mib" in found else "")
        facts += [f"{form}: {_number(found[form]['share_of_copy'])} of copy" for form in ("float32", "bfloat16") if form in found]
        facts += [f"{key} {found[key]}" for key in ("verdict", "comparisons", "arrays", "tests", "failures") if key in found]
        facts.append(f"{len(found['differing'])} differ" if "differing" in found else "")
        rows.append((name, found["status"], ", ".join(filter(None, facts)), found.get("reason", "")))
    yield from _table(("part", "status", "found", ""), rows)


def _traffic(known: dict[str, Result]) -> Iterator[str]:
    yield from (
        "### Bytes and launches\n",
        "Of one joint step, counted on a machine without a GPU: of jax what XLA compiles for an H100 described to it, of torch",
        "the eager step's operations. Each kernel is counted with all its operands and results: what it would move if nothing",
        "were found in a cache. That is no time; it is a number that a change can be judged by. The target is at most 70 GB and",
        "500 launches.\n",
        "In torch a norm, its shortcut and the activation after it are one pass in each direction. Layer by layer, counted",
        "alike, a step takes 95.3 GB in 3,849 launches; 66.5 GB were predicted, and the count is below. Most launches that are",
        "left are small: composing the kernels of 29 layers, losses of four exits. `graphs = true` starts them as one; their",
        "number is over the target.\n",
        "torch's compiled step is not counted: Inductor lowers no graph for a CUDA device in a build of torch without CUDA.",
        "Tensors on a fake device are traced, and lowering the first sum then asks for the device's properties, which fails:",
        "`AssertionError: Torch not compiled with CUDA enabled` (`torch.cuda._lazy_init`, torch 2.13.0+cpu).\n",
    )
    for name in ("torch", "jax"):
        yield from _counted(known.get(f"traffic_{name}"), name)


def _counted(result: Result | None, name: str) -> Iterator[str]:
    if result is None:
        yield f"{name}: not run.\n"
        return
    yield (
        f"{name}, ResNet-18, T = 4, batch {result['batch_size']}, {result['precision']}: **{result['gigabytes']} GB** in "
        f"**{result['launches']:,} launches**."
    )
    yield _where({**result, "under_load": False}) + "\n"  # counts are the same under any load
    columns = ("kind", "launches", "gigabytes")
    yield from _table(("kind", "launches", "GB"), ([row[column] for column in columns] for row in result["kinds"][:10]))
    yield ""


def _where(result: Result | None) -> str:
    """Machine, versions, date, load and clock of a file of results."""
    if result is None:
        return "not run."
    machine, versions = result["machine"], result["versions"]
    there = [f"{machine['processor']}, {machine['cores']} cores", f"GPU {machine['gpu']}" if machine["gpu"] != "none" else ""]
    there += [f"{name} {versions[name]}" for name in ("python", "torch", "jax") if name in versions]
    served = [f"{name}: {text}" for by in result.get("kernels", {}).values() for name, text in by.items()]
    there += [f"({'; '.join(served)})"] if served else []
    there += [result["date"][:10], f"load {result['load']}", "processor time" if result["clock"] == "cpu" else ""]
    return ", ".join(filter(None, there)) + (": **under load**." if result["under_load"] else ".")


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        f"|{' --- |' * len(heads)}",
        *(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows),
    ]


def _spread(found: Spread) -> str:
    """Median, quartiles and number."""
    return f"{_number(found['median'])} ({_number(found['q1'])} to {_number(found['q3'])}, n = {found['n']})"


def _number(value: float) -> str:
    """Three significant digits, thousands parted."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return text if "e" not in text else f"{value:.3e}"
