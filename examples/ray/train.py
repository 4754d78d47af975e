"""A run as the training function of Ray Train: Ray starts the workers, Twinspike trains in them as under any launcher.

    python examples/ray/train.py torch digits --workers 2 --out /shared/runs --name first
    python examples/ray/train.py jax cifar10 --workers 4 --gpu --out /shared/runs --name second --set data.path=/shared/cifar

`out` must be a folder that all machines see. A run that is there goes on from its last checkpoint, so that the same line, and
Ray itself where a worker fails, goes on where it stopped, with another number of workers too.
"""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path
from typing import Any

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchTrainer
from ray.train.v2.jax import JaxTrainer


def work(given: dict[str, Any]) -> None:
    """What each worker does: the run, new or resumed, over all workers."""
    from twinspike_training.config import load_config  # noqa: PLC0415 - in the worker, after Ray has set its environment
    from twinspike_training.loop import resume, start  # noqa: PLC0415 - likewise
    from twinspike_training.progress import Progress  # noqa: PLC0415 - likewise
    from twinspike_training.run import open_run, read_config  # noqa: PLC0415 - likewise
    from twinspike_training.terminal import console  # noqa: PLC0415 - likewise

    context = ray.train.get_context()
    folder = Path(given["out"], given["name"])
    said = broadcast_from_rank_zero({"place": _place(), "there": (folder / "config.json").exists()})
    host, port = said["place"]
    # for torch Ray has said it already, and joined the processes
    words = {"RANK": context.get_world_rank(), "WORLD_SIZE": context.get_world_size(), "LOCAL_RANK": context.get_local_rank()}
    for name, value in (words | {"MASTER_ADDR": host, "MASTER_PORT": port}).items():
        os.environ.setdefault(name, str(value))
    progress = Progress(console(quiet=context.get_world_rank() > 0))
    changes = [*given["set"], f"backend={given['backend']}", "devices=1"]
    if said["there"]:
        run = open_run(folder)
        outcome = resume(run, read_config(run, changes), progress)
    else:
        outcome = start(load_config(given["config"], [*changes, f"out={given['out']}", f"name={given['name']}"]), progress)
    last = outcome.last or {}
    ray.train.report({"steps": outcome.steps} | {k: v for k, v in last.items() if isinstance(v, int | float)})


def _place() -> tuple[str, int]:
    """This machine's address, and a port that is free on it."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return ray.util.get_node_ip_address(), int(probe.getsockname()[1])


def trainer(
    backend: str, config: str, *, workers: int, out: Path, name: str, gpu: bool = False, set_: list[str] | None = None
) -> TorchTrainer | JaxTrainer:
    """The trainer of a run; its `fit` returns when the run is at its end.

    Args:
        backend: torch or jax.
        config: as of `twinspike train`.
        workers: N, each with one device.
        out: folder of runs, seen by all.
        name: of the run.
        gpu: whether each worker has a GPU, else a core.
        set_: changes of the config, `key=value`.
    """
    changes = [*(set_ or []), *(["device=cuda"] if gpu else [])]
    given = {"backend": backend, "config": config, "out": str(out.resolve()), "name": name, "set": changes}
    return {"torch": TorchTrainer, "jax": JaxTrainer}[backend](
        work,
        train_loop_config=given,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=RunConfig(name=name, storage_path=str(out.resolve() / "ray"), failure_config=FailureConfig(max_failures=3)),
    )


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backend", choices=["torch", "jax"])
    parser.add_argument("config", help="as of twinspike train")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--name", required=True)
    parser.add_argument("--gpu", action="store_true", help="a GPU for each worker")
    parser.add_argument("--set", dest="set_", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    trainer(**vars(given)).fit()


if __name__ == "__main__":
    main()
