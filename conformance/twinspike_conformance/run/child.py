"""How the suite starts a process of its own that it asks by a pipe and hears by another."""

from __future__ import annotations

import os
import subprocess
import sys


def started(module: str) -> subprocess.Popen[bytes]:
    """A module of the suite in a new Python that finds what this one does; nothing is imported from where it is run."""
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": paths},
    )
