"""The guards of conftest.py can fail: a skip is an error, and --without leaves out what needs the framework."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"


def run(folder: Path, files: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest over a folder of its own with this conftest.py."""
    (folder / "conftest.py").write_text(CONFTEST.read_text())
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        "--rootdir",
        str(folder),
        *options,
        str(folder),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


PASSES = "def test_passes():\n    pass\n"


@pytest.mark.parametrize(
    "text",
    [
        "import pytest\n\ndef test_a():\n    pytest.skip('no reason')\n",
        "import pytest\n\n@pytest.mark.skip(reason='no reason')\ndef test_a():\n    pass\n",
        "import pytest\n\n@pytest.fixture\ndef f():\n    pytest.skip('no reason')\n\ndef test_a(f):\n    pass\n",
        "import pytest\n\npytest.skip('no reason', allow_module_level=True)\n",
        "import pytest\n\npytest.importorskip('twinspike_of_another_name', reason='no reason')\n",
    ],
)
def test_skip_is_a_failure(tmp_path: Path, text: str) -> None:
    done = run(tmp_path, {"spec/test_one.py": text, "spec/test_two.py": PASSES})
    status = pytest.ExitCode.TESTS_FAILED if "def test_a" in text else pytest.ExitCode.INTERRUPTED
    assert done.returncode == status, done.stdout
    assert "no reason" in done.stdout
    assert "Skips are failures here" in done.stdout


@pytest.mark.parametrize(
    ("without", "left"),
    [
        ((), {"spec", "torch", "conformance", "cross", "training", "training/jax"}),
        (("torch",), {"spec", "conformance", "training", "training/jax"}),
        (("jax",), {"spec", "torch", "conformance", "training"}),
        (("torch", "jax", "train"), {"spec", "conformance"}),
    ],
)
def test_without_leaves_out_folders(tmp_path: Path, without: tuple[str, ...], left: set[str]) -> None:
    names = ("spec", "torch", "conformance", "cross", "training", "training/jax")
    options = [f"--without={name}" for name in without]
    done = run(tmp_path, {f"{name}/test_one.py": PASSES for name in names}, "-v", *options)
    assert done.returncode == 0, done.stdout
    assert {name for name in names if f"\n{name}/test_one.py::test_passes PASSED" in done.stdout} == left
    assert f"{len(left)} passed" in done.stdout


@pytest.mark.parametrize("place", ["test_one.py", "tensorflow/test_one.py"])
def test_a_file_whose_folder_says_no_need_is_refused(tmp_path: Path, place: str) -> None:
    done = run(tmp_path, {place: PASSES, "spec/test_two.py": PASSES})
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    assert f"{place} lies in no folder that says what it needs: spec, " in done.stdout


def test_only_takes_what_needs_it(tmp_path: Path) -> None:
    done = run(
        tmp_path, {f"{name}/test_one.py": PASSES for name in ("spec", "jax", "training/jax", "training")}, "-v", "--only", "jax"
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_unknown_framework_is_refused(tmp_path: Path) -> None:
    assert run(tmp_path, {}, "--without=tensorflow").returncode == pytest.ExitCode.USAGE_ERROR
