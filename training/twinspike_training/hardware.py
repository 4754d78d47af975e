"""What a run's numbers were measured on, in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path

PROC = Path("/proc")


def hardware() -> str:
    """The processor and how many of its cores this process may use, then each NVIDIA GPU that the system's driver lists."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return ", ".join([f"{_processor()} ({cores} {'core' if cores == 1 else 'cores'})", *_gpus()])


def _processor() -> str:
    try:
        lines = (PROC / "cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named and named[0] else platform.processor() or platform.machine() or "a processor without a name"


def _gpus() -> list[str]:
    found = []
    for path in sorted((PROC / "driver" / "nvidia" / "gpus").glob("*/information")):
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return found
