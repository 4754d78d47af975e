"""Mutation testing with mutmut: change one token of the reference or of the bounds, and see whether a test notices.

mutmut wants the sources under `src/`, reads its settings from the folder it runs in, and leaves its mutants
there; so each target is staged in a folder of its own under `.mutation/`, with the tests that decide it.
What lives must stand in `equivalent.toml` with the reason; anything else is a missing test, and an error.

    python mutation/run.py            all targets
    python mutation/run.py bounds     one of them
"""

from __future__ import annotations

import argparse
import difflib
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
STAGES = ROOT / ".mutation"
PACKAGES = ("spec/twinspike", "backends/twinspike_numpy", "conformance/twinspike_conformance")
REFERENCE, SUITE = "twinspike.reference", "twinspike_conformance"
KILLED = (1, 3)
"""mutmut's statuses of a mutant that made a test fail, or pytest break."""


class Target(NamedTuple):
    """Modules, the tests that decide about their mutants, and which mutants are run."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    sample: tuple[str, ...] = ("*",)
    """Patterns of mutants' numbers; the same in every run."""
    options: tuple[str, ...] = ()


EVERY_FOURTH = ("*[_02468][159]", "*[13579][37]")
"""Numbers n with n mod 4 = 1."""

TARGETS = {
    "reference": Target(
        tuple(
            f"{REFERENCE}.{m}" for m in ("surrogate", "neuron", "factorization", "layers", "norm", "losses", "optimizer", "rows")
        ),
        ("spec/test_reference_formulas.py", "spec/test_reference_operations.py", "spec/test_reference_edges.py"),
    ),
    "networks": Target(
        (f"{REFERENCE}.network", f"{REFERENCE}.step"),
        ("spec/test_reference_network.py", "spec/test_reference_edges.py"),
        EVERY_FOURTH,
        ("-k", "not every_single_array"),
    ),
    "bounds": Target(
        tuple(f"{SUITE}.bounds.{m}" for m in ("tracked", "budget", "finding", "spectral")), ("conformance/test_rules.py",)
    ),
    "orders": Target((f"{SUITE}.judges.factored",), ("conformance/test_factored.py",)),
    "judges": Target(
        tuple(f"{SUITE}.judges.{m}" for m in ("operations", "certificates", "networks")),
        ("conformance/test_judges.py", "conformance/test_factored.py"),
        ("*5",),
    ),
}


def stage(name: str, target: Target) -> Path:
    """A fresh folder with the sources, the tests and mutmut's settings."""
    folder = STAGES / name
    shutil.rmtree(folder, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / "src" / Path(package).name, ignore=ignore)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=ignore)
    settings = {
        "source_paths": ["src"],
        "only_mutate": [f"src/{module.replace('.', '/')}.py" for module in target.modules],
        "also_copy": ["pyproject.toml"],
        "pytest_add_cli_args": ["-p", "no:cacheprovider", *target.options],
        "pytest_add_cli_args_test_selection": [f"tests/{test}" for test in target.tests],
        "timeout_multiplier": 5.0,
        "timeout_constant": 4.0,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    false = [f"{key} = false" for key in ("use_git_change_detection", "track_dependencies", "use_setproctitle")]
    pytest = [
        "[tool.pytest.ini_options]",
        'pythonpath = ["tests/support"]',
        'addopts = "--import-mode=importlib"',
        'filterwarnings = ["error"]',
        'markers = ["slow: takes more than ten seconds"]',
    ]
    (folder / "pyproject.toml").write_text("\n".join(["[tool.mutmut]", *lines, *false, *pytest, ""]), encoding="utf-8")
    return folder


def results(folder: Path, target: Target) -> dict[str, int]:
    """Mutant -> mutmut's status, of those that were run."""
    found: dict[str, int] = {}
    for module in target.modules:
        meta = folder / "mutants" / "src" / f"{module.replace('.', '/')}.py.meta"
        statuses = json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
        found |= {name: status for name, status in statuses.items() if status is not None}
    return found


def change(folder: Path, mutant: str) -> str:
    """The first line that a mutant changes, as it reads then, and the function that it stands in."""
    shown = subprocess.run(["mutmut", "show", mutant], cwd=folder, capture_output=True, text=True, check=True).stdout
    line = next(line[1:].strip() for line in shown.splitlines() if line.startswith("+") and not line.startswith("+++"))
    return f"{mutant.partition('__mutmut_')[0]}: {line}"


def alive(folder: Path, target: Target) -> list[str]:
    """What lived, as `change` tells it."""
    return [change(folder, name) for name, status in results(folder, target).items() if status not in KILLED]


def run(name: str, target: Target, children: int, known: dict[str, str]) -> bool:
    """Run one target and print what came of it; whether all that lived was known to."""
    folder = stage(name, target)
    patterns = [f"{module}.{pattern}" for module in target.modules for pattern in target.sample]
    subprocess.run(["mutmut", "run", "--max-children", str(children), *patterns], cwd=folder, check=True)
    living = alive(folder, target)
    new = [line for line in living if line not in known]
    print(f"{name}: {len(results(folder, target))} mutants, {len(living)} live, {len(new)} of them for no known reason")
    for line in new:
        near = difflib.get_close_matches(line, known, n=1)
        print(f"  {line}" + (f"\n    (known: {near[0]})" if near else ""))
    return not new


def main() -> int:
    """Read the command line; 1 if a mutant lives for no known reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="*", choices=[[], *TARGETS], help="targets; all if none is named")
    parser.add_argument("--children", type=int, default=1, help="mutants that are run at a time")
    given = parser.parse_args()
    known = tomllib.loads((ROOT / "mutation" / "equivalent.toml").read_text(encoding="utf-8"))["alive"]
    done = [run(name, TARGETS[name], given.children, known) for name in given.target or TARGETS]
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
