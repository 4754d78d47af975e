"""Training over two processes of one core each, beside one process of one core: images per second.

    python benchmarks/devices.py [--backend torch] [--backend jax] [--rounds 9]

A ResNet-18 of a few channels takes joint steps on one batch, which two processes share. All variants of a backend are running
and take turns, so that each meets the machine as the others do; only one computes at a time. Given are images per second of each
turn, the ratio to one process of one core within a turn, and processor time for an image, all processes together, which says what
the ranks' talk costs on a machine that others use as well. Results go to `results/devices.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

from measure import header, ratio, spread, write

BASE: dict[str, Any] = {"network": "resnet18", "width": 16, "time_steps": 4, "batch_size": 16}
VARIANTS = {"one process": 1, "two processes": 2}
"""Processes, each with a core and a thread of its own."""


class Team:
    """The processes of one variant, which wait to be told how many steps to take."""

    def __init__(self, backend: str, processes: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        words = [sys.executable, __file__, "--work", backend, str(processes), address]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        environ = os.environ | {"OMP_NUM_THREADS": "1"}
        self._popen: list[Any] = [subprocess.Popen([*words, str(rank)], env=environ, **pipes) for rank in range(processes)]
        self.turn(2)  # compiles

    def turn(self, steps: int) -> tuple[float, float]:
        """Seconds by the clock, and of processors in all processes."""
        for process in self._popen:
            process.stdin.write(f"{steps}\n")
            process.stdin.flush()
        found = []
        for process in self._popen:
            while not (line := process.stdout.readline()).startswith("{"):
                if not line:
                    sys.exit(f"devices: a process ended with status {process.wait()}")
            found.append(json.loads(line))
        return max(one["wall"] for one in found), sum(one["cpu"] for one in found)

    def close(self) -> None:
        """End them."""
        for process in self._popen:
            process.stdin.close()
        for process in self._popen:
            process.wait()


def work(backend: str, processes: int, address: str, rank: int) -> None:
    """What each process does."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [sorted(os.sched_getaffinity(0))[-1 - rank]])
    from workload import LEARNING_RATE, batch

    import twinspike as ts
    from twinspike.replicas import Rendezvous, share
    from twinspike_training import heap

    heap.keep()
    found: Any = ts.load(backend)
    given = ("cpu", "f32-ieee", backend == "jax")
    if processes > 1:
        session = found.replicated(*given, at=Rendezvous(address=address, rank=rank, world_size=processes))
    else:
        session = found.session(*given)
    network = ts.network("resnet18", width=BASE["width"], classes=10)
    method, optimizer = ts.Method(time_steps=BASE["time_steps"]), ts.SGD()
    program = session.program(network, method, optimizer)
    state = program.load(ts.initial_state(network, method, optimizer))
    images, labels = batch(BASE["batch_size"], network.input_shape)
    mine = share(len(labels), processes, rank)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            state, metrics = program.train_step(state, images[mine], labels[mine], LEARNING_RATE)
            float(session.to_numpy(metrics.loss))
        print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}), flush=True)


def rows(backend: str, rounds: int, steps: int) -> list[dict[str, Any]]:
    """One row for each variant."""
    teams = {name: Team(backend, processes) for name, processes in VARIANTS.items()}
    walls: dict[str, list[float]] = {name: [] for name in teams}
    cpus: dict[str, list[float]] = {name: [] for name in teams}
    names = list(teams)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            wall, cpu = teams[name].turn(steps)
            walls[name].append(wall)
            cpus[name].append(cpu)
    for team in teams.values():
        team.close()
    images = steps * BASE["batch_size"]
    first = names[0]
    return [
        {
            "backend": backend,
            "variant": name,
            "images_per_second": spread([images / wall for wall in walls[name]]),
            "faster": ratio(walls[first], walls[name]),
            "cpu_ms_per_image": spread([1000 * cpu / images for cpu in cpus[name]]),
        }
        for name in names
    ]


def main() -> None:
    """Measure both backends, or those that were asked for."""
    if sys.argv[1:2] == ["--work"]:
        backend, processes, address, rank = sys.argv[2:]
        work(backend, int(processes), address, int(rank))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", action="append", choices=["torch", "jax"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=3, help="of a turn")
    given = parser.parse_args()
    result = header("devices") | {"base": BASE, "precision": "f32-ieee", "rows": []}
    for backend in given.backend or ["torch", "jax"]:
        for row in rows(backend, given.rounds, given.steps):
            result["rows"].append(row)
            print(row, flush=True)
    print(write("devices", result))


if __name__ == "__main__":
    main()
