"""From a bare checkout to the main job or the tests, in one line each, with nothing but Python and pip.

`python3 dev.py demo` trains the digits with torch and with jax and compares the two; `python3 dev.py
test` runs the tests through tox. Both keep their tools in `.venv`, in the versions of constraints.txt.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
RUNS = Path("runs") / "demo"
SECOND_PYTHON = (3, 12)
"""The other Python that the tests run under; its tox environments have names that begin with py312."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
"""Programs of which one must be on the path for tox' environment `browser`."""
AT_ONCE = 4
"""Most tox environments at a time, on machines with more cores than these: each takes some GiB."""


def run(*command: str) -> None:
    """Show a command, run it at the repository's root, and end with its status if it fails."""
    print(f"$ {shlex.join(command)}", flush=True)
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status:
        sys.exit(status)


def make() -> None:
    """Make `.venv`, or end with a line that says why it can't be made."""
    python = "python{}.{}".format(*sys.version_info)
    lacking = [name for name in ("venv", "ensurepip") if find_spec(name) is None]
    if lacking:
        sys.exit(
            f"{sys.executable} lacks {' and '.join(lacking)} and so can't make virtual environments; on Debian and Ubuntu, "
            f"install them: apt install {python}-venv"
        )
    print(f"making {VENV}", flush=True)
    try:
        import_module("venv").create(VENV, with_pip=True)
    except (OSError, subprocess.CalledProcessError, SystemExit) as error:  # Debian's venv exits
        shutil.rmtree(VENV, ignore_errors=True)
        sys.exit(f"{VENV} can't be made: {error}; try `{sys.executable} -m venv {VENV}`, which says more")


def check() -> None:
    """End with a line if `.venv` is no whole environment of the Python that runs this."""
    told = "import pip, sys; print('{}.{}.{}'.format(*sys.version_info))"
    try:
        found = subprocess.run([str(BIN / "python"), "-c", told], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        sys.exit(f"{VENV} has no working Python with pip: remove it, and run this again")
    if found != "{}.{}.{}".format(*sys.version_info):
        sys.exit(f"{VENV} is of Python {found}, and this is {sys.version.split()[0]}: remove it, or run this with that Python")


def install(*what: str) -> None:
    """Make `.venv` if there is none and install into it."""
    if not VENV.exists():
        make()
    check()
    run(str(BIN / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", "constraints.txt", *what)


def demo() -> None:
    """Train the digits once per framework, plot both runs, and hold the two backends against each other."""
    install("--editable", ".[all]")
    shutil.rmtree(ROOT / RUNS, ignore_errors=True)
    twinspike = str(BIN / "twinspike")
    for backend in ("torch", "jax"):
        run(twinspike, "train", "digits", "--backend", backend, "--out", str(RUNS), "--name", backend)
        run(twinspike, "plot", str(RUNS / backend))
    run(twinspike, "compare", str(RUNS / "torch"), str(RUNS / "jax"), "--out", str(RUNS / "compare.png"))
    run(twinspike, "check", "torch", "jax")


def test(options: Sequence[str], complete: bool) -> None:
    """Run tox; what lacks a second Python or a browser is left out, which `complete` makes an error."""
    second, browser = find_python(SECOND_PYTHON), find_browser()
    lacking = []
    if second is None:
        lacking.append(("Python {}.{}".format(*SECOND_PYTHON), "py{}{}-.*".format(*SECOND_PYTHON)))
    if browser is None:
        lacking.append((f"a browser ({', '.join(BROWSERS)})", "browser"))
    if lacking and complete:
        sys.exit(f"{' and '.join(what for what, _ in lacking)}: not on this machine, and --complete asks for it")
    install("tox")
    tox = [str(BIN / "tox"), "run-parallel", "--parallel", str(min(os.cpu_count() or 1, AT_ONCE)), "--parallel-no-spinner"]
    tox += ["--discover", second] if second else []
    tox += ["--skip-env", "|".join(environments for _, environments in lacking)] if lacking else []
    run(*tox, *options)
    for what, environments in lacking:
        print(f"not run, for want of {what}: the environments {environments}")


def find_browser() -> str | None:
    """The first of `BROWSERS` that is on the path."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def find_python(version: tuple[int, int]) -> str | None:
    """An interpreter of that version: this one, on the path, or installed by pyenv though not selected there."""
    if sys.version_info[:2] == version:
        return sys.executable
    name = "python{}.{}".format(*version)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [shutil.which(name), *map(str, sorted((pyenv / "versions").glob("{}.{}.*/bin/python".format(*version))))]
    for candidate in candidates:
        # A pyenv shim is on the path for every version installed, and fails for those not selected.
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def main() -> None:
    """Read the command line."""
    if sys.version_info < (3, 11):
        sys.exit(f"dev.py needs Python 3.11 or newer, and this is {sys.version.split()[0]}")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="set up, train the digits with torch and jax, compare them")
    tests = commands.add_parser("test", help="set up, run the tests through tox")
    tests.add_argument("--complete", action="store_true", help="refuse to run where the second Python or a browser is missing")
    tests.add_argument("tox", nargs="*", help="options for tox, after --")
    options = parser.parse_args()
    if options.command == "demo":
        demo()
    else:
        test(options.tox, options.complete)


if __name__ == "__main__":
    main()
