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
from twinspike_torch import norm
from twinspike_torch.lif_kernels import Kernel, served, served_devices
from twinspike_torch.session import OPERATIONS_HERE, TorchSession


@final
class TorchBackend:
    """PyTorch, eager or compiled, on the CPU and on CUDA devices; neurons by the kernel asked for."""

    def __init__(self, kernel: Kernel = "auto") -> None:
        self.name = "torch" if kernel == "auto" else f"torch-{kernel}"
        self._kernel = kernel

    def capabilities(self) -> Capabilities:
        """Every operation and network; `tf32` where there is a CUDA device."""
        cuda = torch.cuda.is_available()
        devices = served_devices(("cpu", "cuda") if cuda else ("cpu",), self._kernel)
        compiler = any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++"))
        return Capabilities(
            operations=OPERATIONS_HERE,
            networks=True,
            precisions=frozenset({"f64", "f32-ieee", "bf16-mixed", *(["tf32"] if cuda else [])}),
            devices=devices,
            compiled=compiler,
            versions={
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "cuda": str(torch.version.cuda),
                "twinspike": twinspike.__version__,
            },
            kernels=served(devices, self._kernel) | norm.served(devices),
        )

    def session(self, device: str = "cpu", precision: str = "f32-ieee", compiled: bool = False) -> TorchSession:
        """Open a device.

        Raises:
            SpecError: the device, the precision or the mode is not there.
        """
        check_claim(self.name, self.capabilities(), device, precision, compiled)
        return TorchSession(device, precision, compiled, self._kernel)


backend = TorchBackend()
plain, numba, triton = TorchBackend("plain"), TorchBackend("numba"), TorchBackend("triton")
"""The same with one kernel of the neuron for all, refused where it is not there: `twinspike_torch.backend:plain`."""
