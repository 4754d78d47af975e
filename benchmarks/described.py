"""An H100 described to XLA, which then compiles for it on a machine that has none.

The numbers are those that XLA 0.11 reads off the card itself (HBM3, 80 GB, boost clock); its cost model chooses by them.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.util import find_spec
from typing import Any

_SCALAR = ((4, 1.98, 64, 1), (8, 1.98, 64, 1), (10, 1.98, 128, 2), (11, 1.98, 128, 1), (12, 1.98, 64, 1), (16, 1.98, 128, 2))
_CLOCK = 1.8295201
_MATRIX = (
    (2, _CLOCK, 4, 1024),
    (6, _CLOCK, 4, 1024),
    (10, _CLOCK, 4, 512),
    (11, _CLOCK, 4, 256),
    (12, 1.98, 4, 32),
    (16, _CLOCK, 4, 512),
)
"""XLA's number of a format, GHz, units per multiprocessor, operations per cycle and unit."""


def _rates(rates: tuple[tuple[int, float, int, int], ...]) -> str:
    one = "rate_infos {{ key: {} value {{ clock_rate_ghz: {} units_per_core: {} ops_per_clock: {} }} }}"
    return " ".join(one.format(*rate) for rate in rates)


H100 = f"""
gpu_device_info {{
  cuda_compute_capability {{ major: 9 feature_extension: ACCELERATED_FEATURES }}
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84942979072
  scalar_unit_description {{ {_rates(_SCALAR)} }}
  matrix_unit_description {{ {_rates(_MATRIX)} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "NVIDIA H100 80GB HBM3"
"""


class Described:
    """jax with the device, and what compiles for it. To be made before jax is used for anything else."""

    def __init__(self) -> None:
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # no driver is asked for its version
        if find_spec("jax_plugins") is None or find_spec("jax_plugins.xla_cuda13") is None:
            sys.exit("compiling for an H100: expected jax-cuda13-plugin and jax-cuda13-pjrt of jax's own version, got none")
        import jax
        from jax.experimental import topologies

        jax.devices()  # plugins are found as backends are made
        described = topologies.get_topology_desc("h100", "cuda", target_config=H100, topology="1x1x1")
        self._jax, self.device = jax, described.devices[0]
        self._placed = jax.sharding.SingleDeviceSharding(self.device)
        gpu_info: Any = importlib.import_module("jax._src.pallas.triton.gpu_info")  # of jax 0.11 and newer
        card = gpu_info._get_gpu_info_impl(gpu_info.GpuVersion.H100)
        gpu_info.get_gpu_info = lambda: card  # Pallas asks the card that is there

    def array(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array on the device, without values."""
        form: Any = self._jax.ShapeDtypeStruct
        return form(tuple(shape), dtype, sharding=self._placed)

    def compile(self, function: Any, *arrays: Any) -> Any:
        """A jitted function for arrays of these shapes, compiled for the device."""
        return function.trace(*arrays).lower(lowering_platforms=("cuda",)).compile()
