"""The backend object: what is claimed on this machine, and sessions."""

from __future__ import annotations

import os
import platform
import shutil
from typing import final

import torch
from torch import distributed

import twinspike
from twinspike.backend import Capabilities
from twinspike.checks import check_claim
from twinspike.errors import require
from twinspike.replicas import Rendezvous
from twinspike_torch import norm
from twinspike_torch.lif_kernels import Kernel, served, served_devices
from twinspike_torch.replicas import Ranks
from twinspike_torch.session import OPERATIONS_HERE, TorchSession


@final
class TorchBackend:
    """PyTorch, eager or compiled, on the CPU and on CUDA devices; neurons by the kernel asked for."""

    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "{devices}")

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
            replicas="processes" if distributed.is_available() else "none",
            versions={
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "cuda": str(torch.version.cuda),
                "twinspike": twinspike.__version__,
            },
            kernels=served(devices, self._kernel) | norm.served(devices),
            specification=twinspike.__version__,
        )

    def session(self, device: str = "cpu", precision: str = "f32-ieee", compiled: bool = False) -> TorchSession:
        """Open a device.

        Raises:
            SpecError: the device, the precision or the mode is not there.
        """
        check_claim(self.name, self.capabilities(), device, precision, compiled)
        return TorchSession(device, precision, compiled, self._kernel)

    def join(self, device: str, devices: int, at: Rendezvous | None) -> None:
        """Nothing: processes meet where a session is opened."""

    def replicated(
        self,
        device: str = "cpu",
        precision: str = "f32-ieee",
        compiled: bool = False,
        *,
        devices: int = 1,
        at: Rendezvous | None = None,
    ) -> TorchSession:
        """Open a device of this process, which is one of those that meet, or of a group that torch has joined.

        Raises:
            SpecError: the device, the precision or the mode is not there, more than one device is asked for, or the others
                can't be met.
        """
        claims = self.capabilities()
        check_claim(self.name, claims, device, precision, compiled)
        require(
            claims.replicas != "none", f"replicas of backend {self.name!r}", expected="a torch with torch.distributed", got="none"
        )
        do = "start one process for each device (torchrun)"
        require(devices == 1, f"devices of a process of backend {self.name!r}", expected="1", got=devices, do=do)
        if device == "cuda":
            device = f"cuda:{0 if at is None else at.local_rank}"
            torch.cuda.set_device(device)
        return TorchSession(device, precision, compiled, self._kernel, Ranks(torch.device(device), at))


backend = TorchBackend()
plain, numba, triton = TorchBackend("plain"), TorchBackend("numba"), TorchBackend("triton")
"""The same with one kernel of the neuron for all, refused where it is not there: `twinspike_torch.backend:plain`."""
