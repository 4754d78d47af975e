"""Triton's kernels compiled for an H100 without one; prints what the assembler says of each: `python triton_sm90.py`.

A driver that only names the device stands for CUDA's. Kernels are not started; their launches compile.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

import twinspike as ts
from twinspike_torch import lif_triton, norm_activation_kernels, norm_activation_triton, norm_triton
from twinspike_torch.lif_form import form
from twinspike_torch.norm_activation import Source

TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


class Named(DriverBase):
    """Says what the device is, and nothing else."""

    def __init__(self) -> None:
        pass

    @classmethod
    def is_active(cls) -> bool:
        return True

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_benchmarker(self) -> Callable[..., Any]:
        raise NotImplementedError


class Recorded:
    """A kernel whose launches compile and are noted."""

    def __init__(self, kernel: Any, noted: list[Any]) -> None:
        self.kernel, self.noted = kernel, noted

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*args: Any, **options: Any) -> None:
            self.noted.append(self.kernel.warmup(*args, grid=grid, **options))

        return launch


def resources(compiled: Any) -> dict[str, Any]:
    """Registers, bytes of stack and local memory (spills), and instructions that reach global memory by their width."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        used, code = (
            subprocess.run([TOOL, flag, file.name], capture_output=True, text=True, check=True).stdout
            for flag in ("-res-usage", "-sass")
        )
    found: dict[str, Any] = {name.lower(): int(re.search(rf"{name}:(\d+)", used)[1]) for name in ("REG", "STACK", "LOCAL")}  # type: ignore[index]  # it says all
    access: dict[str, int] = {}
    for name, width in re.findall(r"\b(LDG|STG)\.E(?:\.\w+)*?(?:\.(64|128|U8|U16))?\b", code):
        access[f"{name}.{width or 32}"] = access.get(f"{name}.{width or 32}", 0) + 1
    return {**found, "access": access}


def kernels() -> Iterator[tuple[str, Any]]:
    """Each kernel as a network of real size launches it, with what of it is compiled."""
    noted: list[Any] = []
    for module, names in (
        (lif_triton, ("_forward", "_backward")),
        (norm_triton, ("_statistics", "_apply", "_sums", "_to_inputs")),
        (norm_activation_kernels, ("_activate", "_sums", "_to_inputs", "_finish", "_finish_sums")),
    ):
        for name in names:
            setattr(module, name, Recorded(getattr(module, name), noted))
    neuron = ts.Neuron()
    for dtype in (torch.float32, torch.bfloat16):
        for steps in (4, 16):
            x = (
                torch.empty(steps * 2, 64, 32, 32, dtype=dtype)
                .contiguous(memory_format=torch.channels_last)
                .view(steps, 2, 64, 32, 32)
            )
            lif_triton.forward(x, None, None, None, form(neuron), False)
            lif_triton.backward(x, None, None, None, torch.empty_like(x), None, form(neuron), (False, False))
            yield from (
                (f"lif {name} {dtype} {steps}", found) for name, found in zip(("forward", "backward"), noted, strict=True)
            )
            noted.clear()
        for channels in (64, 512) if dtype == torch.bfloat16 else (64,):
            x = torch.empty(2, 4, 16, 16, channels, dtype=dtype).movedim(-1, 2)
            gamma = torch.empty(channels)
            _, mean, _, inverse = norm_triton.normalize(x, gamma, gamma, 1e-5)
            norm_triton.gradients(torch.empty_like(x), x, gamma, mean, inverse, 1e-5)
            names = ("statistics", "apply", "sums", "to_inputs")
            yield from ((f"norm {name} {dtype} {channels}", found) for name, found in zip(names, noted, strict=True))
            noted.clear()
    yield from joined(neuron, noted)


def joined(neuron: ts.Neuron, noted: list[Any]) -> Iterator[tuple[str, Any]]:
    """A norm with its activation in one: with a value as it is, and with another norm, each of four steps."""
    by, config = norm_activation_triton, ts.BatchNorm()
    for dtype, adds in ((torch.bfloat16, "value"), (torch.bfloat16, "norm"), (torch.float32, "value")):
        x, gamma = torch.empty(4, 4, 16, 16, 64, dtype=dtype).movedim(-1, 2), torch.empty(64)
        source = Source(x, gamma, gamma, gamma, gamma, 1)
        known, *_ = by.statistics(config, source)
        other: tuple[Any, ...] = known if adds == "norm" else (torch.empty_like(x),)
        shape = by.shape(config, form(neuron), 4, x, source if adds == "norm" else other[0])
        y = by.activate(shape, known, other, torch.zeros((), dtype=torch.float64))
        by.gradients(config, shape, known, other, torch.empty_like(y))
        for found in noted:
            name = found.src.fn.__name__.strip("_")
            if name not in ("statistics", *(("finish", "finish_sums") if dtype == torch.float32 else ())):
                yield f"joined {name} {dtype} {adds}", found
        noted.clear()


if __name__ == "__main__":
    triton.runtime.driver.set_active(Named())
    print(json.dumps({name: resources(compiled) for name, compiled in kernels()}, indent=1))
