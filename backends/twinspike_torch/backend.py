"""The backend object: what is claimed on this machine, and sessions."""

from __future__ import annotations

import os
import platform
import shutil
from typing import final

import torch

import twinspike
from twinspike.backend import Capabilities
from twinspike.checks import check_claim
from twinspike_torch.session import OPERATIONS_HERE, TorchSession


@final
class TorchBackend:
    """PyTorch, eager or compiled, on the CPU and on CUDA devices."""

    name = "torch"

    def capabilities(self) -> Capabilities:
        """Every operation and network; `tf32` where there is a CUDA device."""
        cuda = torch.cuda.is_available()
        compiler = any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++"))
        return Capabilities(
            operations=OPERATIONS_HERE,
            networks=True,
            precisions=frozenset({"f64", "f32-ieee", "bf16-mixed", *(["tf32"] if cuda else [])}),
            devices=("cpu", "cuda") if cuda else ("cpu",),
            compiled=compiler,
            versions={
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "cuda": str(torch.version.cuda),
                "twinspike": twinspike.__version__,
            },
        )

    def session(self, device: str = "cpu", precision: str = "f32-ieee", compiled: bool = False) -> TorchSession:
        """Open a device.

        Raises:
            SpecError: the device, the precision or the mode is not there.
        """
        check_claim(self.name, self.capabilities(), device, precision, compiled)
        return TorchSession(device, precision, compiled)


backend = TorchBackend()
