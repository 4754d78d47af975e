"""The example for SLURM, run by a shell to which stand-ins for `srun` and `scontrol` say what SLURM's own would.

The stand-in of `srun` starts two processes of this machine with the words of a step in their environment, and nothing else that
a launcher says: where they meet, the script itself has said.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "examples/slurm/train.sbatch"

SRUN = """#!/bin/bash
for rank in 0 1; do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NTASKS=2 SLURM_STEP_ID=0 SLURM_LAUNCH_NODE_IPADDR=192.0.2.1 "$@" &
    children+=($!)
done
worst=0
for child in "${children[@]}"; do
    wait "$child" || worst=$?
done
exit $worst
"""
SCONTROL = """#!/bin/bash
case $1 in
    show) echo 127.0.0.1; echo 127.0.0.2 ;;
    requeue) echo "requeued $2" ;;
esac
"""
SET = ["width=2", "data.limit=64", "data.test_limit=11", "data.workers=0", "method.time_steps=2", "training.batch_size=16"]


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, str]:
    """The environment of a job of two tasks."""
    folder = tmp_path / "bin"
    folder.mkdir()
    twinspike = f'#!/bin/bash\nexec "{sys.executable}" -m twinspike_training.cli "$@"\n'
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("twinspike", twinspike)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_CPUS_PER_TASK": "1"}
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return os.environ | job | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": paths}


def submit(folder: Path, environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run the script as SLURM's daemon does."""
    return subprocess.run(
        ["bash", str(SCRIPT), *words], cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=300
    )


def test_a_job_trains_over_its_tasks_and_goes_on_where_it_stopped(tmp_path: Path, programs: dict[str, str]) -> None:
    options = [word for change in [*SET, "training.max_steps=2"] for word in ("--set", change)]
    done = submit(tmp_path, programs, "first", "digits", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished runs/first after 2 steps") == 1
    lines = [json.loads(line) for line in (tmp_path / "runs/first/metrics.jsonl").read_text().splitlines()]
    assert lines[0]["devices"] == 2
    again = submit(tmp_path, programs, "first", "digits", *options)
    assert again.returncode == 0, again.stderr
    assert "after 2 steps" in again.stdout


def test_a_job_whose_time_is_over_is_queued_again(tmp_path: Path, programs: dict[str, str]) -> None:
    stopped = tmp_path / "bin/twinspike"
    stopped.write_text("#!/bin/bash\nexit 130\n")
    done = submit(tmp_path, programs, "first", "digits")
    assert (done.returncode, done.stdout) == (130, f"requeued {programs['SLURM_JOB_ID']}\n")
