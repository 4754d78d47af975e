"""What one training image costs in memory: bytes kept for the backward pass, ResNet-18, T = 4.

    python benchmarks/memory.py --authors PATH                        torch and the authors' code
    python benchmarks/memory.py --backend jax --precisions bf16-mixed

Counted are unique storages, whole, twice and independently: those that autograd packs for the backward pass
(`saved`), and those made during the forward pass that are still alive when the backward pass begins
(`held`), whoever holds them. Two batch sizes give bytes per image as their difference; what does not grow
with the batch (parameters, composed kernels) is the rest. jax keeps no such list: of it, `saved` is what
`jax.vjp` of the loss hands to the backward pass, values once that are handed over twice; `peak` is the
temporary memory of the compiled step, where XLA keeps or computes again as it sees fit, and which includes
the backward pass's own. On CUDA the allocator's peak is counted of all. Results go to
`results/memory_BACKEND_DEVICE.json`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from measure import header, write
from workload import LEARNING_RATE, JointStep, Workload, batch, offers_recompute

MIB = 2.0**20
Bytes = dict[str, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--authors", type=Path, help="folder of their checkout")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precisions", nargs="*", default=["bf16-mixed", "f32-ieee"])
    parser.add_argument("--backend", default="torch", choices=("torch", "jax"))
    parser.add_argument("--batch-sizes", nargs=2, type=int, default=[2, 4])
    parser.add_argument("--steps", type=int, default=4, help="T")
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--width", type=int, default=None, help="of the network; default: its usual one")
    parser.add_argument("--out", type=Path, help="folder of the results")
    options = parser.parse_args()
    result = header("memory") | {"T": options.steps, "network": options.network, "batch_sizes": options.batch_sizes}
    result |= {"device": options.device, "unit": "MiB", "rows": []}
    for row in rows(options):
        result["rows"].append(row)
        sizes = ", ".join(f"{key} {value:.2f}" for key, value in row.items() if isinstance(value, float))
        print(f"{row['variant']:<8} {row['precision']:<11} {'recompute' if row['recompute'] else '':<10} {row['status']} {sizes}")
        write(f"memory_{options.backend}_{options.device}", result, options.out)


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row per implementation, precision and mode."""
    for precision in options.precisions:
        if options.authors:
            small, large = (theirs(options, precision, size) for size in options.batch_sizes)
            yield row("authors", precision, False, options.batch_sizes, small, large)
        for recompute in (False, True):
            if recompute and not offers_recompute(options.backend):
                missing = {"variant": options.backend, "precision": precision, "recompute": True}
                yield missing | {"status": "not run: the backend does not offer it"}
                continue
            small, large = (ours(options, precision, recompute, size) for size in options.batch_sizes)
            yield row(options.backend, precision, recompute, options.batch_sizes, small, large)


def row(variant: str, precision: str, recompute: bool, sizes: list[int], small: Bytes, large: Bytes) -> dict[str, Any]:
    """MiB per image, and what does not grow with the batch."""
    found: dict[str, Any] = {"variant": variant, "precision": precision, "recompute": recompute, "status": "ok"}
    for key, value in large.items():
        per_image = (value - small[key]) / (sizes[1] - sizes[0])
        found[f"{key}_per_image"] = round(per_image / MIB, 4)
        found[f"{key}_rest"] = round((value - per_image * sizes[1]) / MIB, 4)
    return found


def ours(options: argparse.Namespace, precision: str, recompute: bool, size: int) -> Bytes:
    """One step of a program."""
    step = JointStep(
        Workload(
            backend=options.backend,
            device=options.device,
            precision=precision,
            compiled=options.backend == "jax",
            recompute=recompute,
            network=options.network,
            width=options.width,
            time_steps=options.steps,
            batch_size=size,
        )
    )
    if options.backend == "jax":
        return {"saved": _residuals(options, precision, recompute, size), **_compiled(step)}
    return _counted(step, options.device)


def theirs(options: argparse.Namespace, precision: str, size: int) -> Bytes:
    """One step of the authors' code."""
    import authors

    given: dict[str, Any] = {"device": options.device, "precision": precision, "time_steps": options.steps}
    loaded = authors.load(options.authors, **given, learning_rate=LEARNING_RATE)
    return _counted(lambda: loaded.step(*batch(size)), options.device)


def _residuals(options: argparse.Namespace, precision: str, recompute: bool, size: int) -> int:
    """Bytes of distinct values that `jax.vjp` of the loss keeps, but for what it was given; traced, never run."""
    import twinspike as ts

    jax: Any = import_module("jax")
    backend: Any = import_module("twinspike_jax")
    network, method = ts.network(options.network, width=options.width), ts.Method(time_steps=options.steps)
    params, statistics = backend.init(network, method)
    form = {"precision": precision, "recompute": recompute}

    def kept(params: Any, statistics: Any, images: Any, labels: Any) -> Any:
        def loss(params: Any) -> Any:
            outputs, after = backend.apply(network, method, params, statistics, images, True, **form)
            return backend.joint_loss(*outputs[:4], labels, config=method.loss).loss, after

        return jax.vjp(loss, params, has_aux=True)[1]

    traced = jax.make_jaxpr(kept)(params, statistics, *batch(size, network.input_shape)).jaxpr
    given = {*traced.invars, *traced.constvars}
    variables = {value for value in traced.outvars if isinstance(value, import_module("jax.extend.core").Var)}
    return sum(math.prod(value.aval.shape) * value.aval.dtype.itemsize for value in variables - given)


def _compiled(step: Callable[[], object]) -> Bytes:
    """The largest temporary memory among what a step compiled."""
    jax: Any = import_module("jax")
    jax.clear_caches()
    step()
    known = [executable.get_compiled_memory_stats() for executable in jax.devices()[0].client.live_executables()]
    return {"peak": max(stats.temp_size_in_bytes for stats in known)}


def _counted(step: Callable[[], object], device: str) -> Bytes:
    """Storages packed by autograd, those alive at the first unpacking, and on CUDA the allocator's peak."""
    import torch

    StorageWeakRef: Any = import_module("torch.multiprocessing.reductions").StorageWeakRef
    TorchDispatchMode: Any = import_module("torch.utils._python_dispatch").TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    saved: Bytes = {}
    held: Bytes = {}
    made: dict[int, tuple[Any, int]] = {}

    class Watch(TorchDispatchMode):  # type: ignore[misc]  # torch types it not
        """Notes every storage that an operation makes."""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if not held:
                for tensor in tree_leaves(out):
                    if isinstance(tensor, torch.Tensor):
                        storage = tensor.untyped_storage()
                        known = made.get(storage.data_ptr())
                        if known is None or known[0].expired():
                            made[storage.data_ptr()] = (StorageWeakRef(storage), storage.nbytes())
            return out

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not held:
            storage = tensor.untyped_storage()
            saved[str(storage.data_ptr())] = storage.nbytes()
        return tensor

    def unpack(tensor: torch.Tensor) -> torch.Tensor:
        if not held:
            held.update({str(at): size for at, (reference, size) in made.items() if not reference.expired()})
        return tensor

    step()  # what is made once is not counted
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack), Watch():
        step()
    if not held:
        raise RuntimeError("nothing was unpacked: the backward pass did not run")
    found = {"saved": sum(saved.values()), "held": sum(held.values())}
    return found if device == "cpu" else found | {"peak": torch.cuda.max_memory_allocated() - before}


if __name__ == "__main__":
    main()
