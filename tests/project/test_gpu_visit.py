"""The script for a GPU: it runs uninstalled, its parts end by themselves alone, and what is known is on disk."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTE = "import json, os, pathlib, signal, sys, time; note = lambda **f: pathlib.Path(sys.argv[1]).write_text(json.dumps(f));"
TAKE = """import sys; sys.path.insert(0, {benchmarks!r}); import argparse, pathlib, time
from gpu_parts import device_alone, Notes
o = argparse.Namespace(lock=pathlib.Path({lock!r}), result=pathlib.Path(sys.argv[1])); n = Notes(o.result)
with device_alone(o): n.add(began=time.monotonic()); time.sleep({seconds}); n.add(ended=time.monotonic())
"""


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("gpu_runner")
    monkeypatch.setattr(module, "LEAST", 0.0)
    return module


@pytest.fixture
def visit(runner: ModuleType) -> ModuleType:
    """The table of parts."""
    return importlib.import_module("gpu")


class Bench:
    """Parts that are a few words of Python each, and what becomes of them."""

    def __init__(self, runner: ModuleType, folder: Path) -> None:
        self.runner, self.folder = runner, folder
        self.out, self.scratch = folder / "out", folder / "scratch"
        self.out.mkdir()
        self.scratch.mkdir()
        self.parts: list[Any] = []

    def add(self, name: str, code: str, file: str = "", **more: Any) -> None:
        result = self.scratch / (file or f"{name}.json")
        more = {"limit": 60.0, "stage": 0} | more
        self.parts.append(self.runner.Part(name, [sys.executable, "-c", NOTE + code, str(result)], result, **more))

    def measures(self, name: str, seconds: float = 0.0, **more: Any) -> None:
        """A part that takes the lock."""
        form = {"benchmarks": str(ROOT / "benchmarks"), "lock": str(self.scratch / "device.lock"), "seconds": seconds}
        self.add(name, "\n" + TAKE.format(**form), alone=True, **more)

    def run(self, seconds: float = 120.0, words: tuple[str, ...] = ()) -> dict[str, Any]:
        report = {"parts": self.runner.earlier(self.out)}
        self.runner.Runner(self.out, self.scratch, report, dict(os.environ), seconds).run(self.parts, list(words))
        return self.known()

    def known(self) -> dict[str, Any]:
        return dict(json.loads((self.out / "gpu.json").read_text(encoding="utf-8"))["parts"])


@pytest.fixture
def bench(runner: ModuleType, tmp_path: Path) -> Bench:
    return Bench(runner, tmp_path)


# --- without an installation -----------------------------------------------------------------------------


def started(*words: str, python: str = sys.executable, **environment: str) -> subprocess.CompletedProcess[str]:
    """gpu.py, given no path to this project or to anything else."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [python, *words[:1], str(ROOT / "benchmarks" / "gpu.py"), *words[1:]]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=False)


def test_it_needs_nothing_to_say_what_it_needs(tmp_path: Path) -> None:
    """-S: with the standard library alone, so that what it imports of the project would be missed."""
    run = started("-S", "--out", str(tmp_path / "out"), "--scratch", str(tmp_path / "scratch"))
    assert run.returncode == 1
    assert run.stderr.startswith("gpu.py: expected the packages numpy, msgspec, ")
    assert "got no numpy, msgspec, hypothesis, pytest, jaxtyping, beartype: name wheels by --wheels" in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("given", ["--wheels", "PYTHONPATH"])
def test_what_is_missing_is_unpacked_from_wheels(tmp_path: Path, given: str) -> None:
    python = bare_python(tmp_path, "beartype")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    folders = ["--out", str(tmp_path / "out"), "--scratch", str(tmp_path / "scratch"), "--parts", "none"]
    assert "got no beartype:" in started("-B", *folders, python=python).stderr
    with zipfile.ZipFile(wheels / "beartype-1-py3-none-any.whl", "w") as archive:
        archive.writestr("beartype/__init__.py", "")
    words, environment = (["--wheels", str(wheels)], {}) if given == "--wheels" else ([], {"PYTHONPATH": str(wheels)})
    run = started("-B", *folders, *words, python=python, **environment)
    assert run.returncode == 0, run.stderr
    parts = json.loads((tmp_path / "out" / "gpu.json").read_text(encoding="utf-8"))["parts"]
    assert {found["reason"] for found in parts.values()} == {"left out by --parts"}


def test_backends_are_found_by_name_without_an_installation(tmp_path: Path, visit: ModuleType) -> None:
    """As a part sees them: by metadata that is written for it, in the checkout's own rooms."""
    python = bare_python(tmp_path)
    scratch = tmp_path / "scratch"
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); import gpu, json, pathlib;"
    code += f"print(json.dumps(gpu.child_environment(pathlib.Path({str(scratch)!r}), [])))"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = json.loads(subprocess.check_output([python, "-c", code], env=clean, text=True))
    code = "import twinspike as ts; print(ts.__file__, ts.load('numpy').name)"
    assert subprocess.run([python, "-c", code], env=clean, capture_output=True, check=False).returncode == 1
    found = subprocess.check_output([python, "-c", code], env=environment, text=True)
    assert found.split() == [str(ROOT / "spec" / "twinspike" / "__init__.py"), "numpy"]


def bare_python(tmp_path: Path, *without: str) -> str:
    """An interpreter that finds the packages that are installed here, but not this project, nor what else is named."""
    links, home = tmp_path / "links", tmp_path / "bare"
    links.mkdir()
    for path in (Path(pytest.__file__).parents[1]).iterdir():
        if not path.name.startswith(("twinspike", *without)) and path.suffix != ".pth":
            (links / path.name).symlink_to(path)
    venv.create(home, symlinks=True, with_pip=False)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "links.pth").write_text(str(links), encoding="utf-8")
    return str(home / "bin" / "python")


# --- one failure loses one part --------------------------------------------------------------------------

CUT = [
    ("report.json", '{"records": [{"rea'),
    ("report.json", "{}"),
    ("report.json", '{"records": [{"status": "pass"}]}'),
    ("a.json", '{"step_seconds": {"n": 7, '),
    ("a.json", "[1, 2]"),
    ("a.json", ""),
    ("a.xml", "<testsuites><testsuite tests='3'"),
    ("a.xml", "<testsuites></testsuites>"),
    ("a.xml", "<testsuites><testsuite tests='three'/></testsuites>"),
]


@pytest.mark.parametrize(("file", "text"), CUT, ids=str)
def test_a_result_that_is_cut_or_foreign_is_set_aside_and_costs_its_own_part(bench: Bench, file: str, text: str) -> None:
    bench.add("cut", f"pathlib.Path(sys.argv[1]).write_text({text!r})", f"cut/{file}")
    bench.add("next", "note(step=1)")
    parts = bench.run()
    assert parts["cut"]["status"] == "failed: its result can't be read"
    assert f"{file} is cut short or foreign, set aside as {file}.aside1" in parts["cut"]["unread"]
    assert (bench.scratch / "cut" / f"{file}.aside1").read_text(encoding="utf-8") == text
    assert parts["next"] | {"seconds": 0, "beside": []} == {"status": "ok", "seconds": 0, "beside": [], "step": 1}


ENDS = {
    "raises": ("1 / 0", "failed with 1"),
    "aborts": ("os.abort()", "ended by SIGABRT"),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL"),
    "hangs": ("time.sleep(1000)", "stopped after "),
}


@pytest.mark.parametrize(("code", "status"), ENDS.values(), ids=ENDS)
def test_a_part_that_ends_badly_loses_itself_and_keeps_what_it_has_noted(bench: Bench, code: str, status: str) -> None:
    bench.add("bad", f"note(first=1); {code}", limit=20.0 if "sleep" in code else 60.0)
    bench.add("next", "note(second=2)")
    parts = bench.run()
    assert parts["bad"]["status"].startswith(status)
    assert parts["bad"]["first"] == 1
    assert parts["next"]["status"] == "ok"
    assert parts["next"]["second"] == 2


def test_a_file_that_is_being_written_is_left_alone(bench: Bench) -> None:
    """It is looked at many times meanwhile."""
    write = "p = pathlib.Path(sys.argv[1]); f = p.open('w'); f.write('{'); f.flush(); time.sleep(1); f.write('\"step\": 1}')"
    bench.add("slow", write)
    found = bench.run()["slow"]
    assert (found["status"], found["step"]) == ("ok", 1)


def test_a_part_that_leaves_nothing_has_failed(bench: Bench) -> None:
    bench.add("silent", "")
    (bench.scratch / "silent.json").write_text('{"stale": 1}', encoding="utf-8")
    found = bench.run()["silent"]
    assert (found["status"], found["unread"]) == ("failed: its result can't be read", "no silent.json")
    assert "stale" not in found


@pytest.mark.parametrize("text", ['{"parts": {"lif', "[]", '{"parts": [1]}', '{"parts": {"a": 3}}', ""])
def test_an_earlier_report_that_is_cut_or_foreign_is_set_aside_and_told(
    bench: Bench, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (bench.out / "gpu.json").write_text(text, encoding="utf-8")
    bench.add("next", "note(step=1)")
    assert bench.run()["next"]["status"] == "ok"
    assert (bench.out / "gpu.json.aside1").read_text(encoding="utf-8") == text
    assert "gpu.json is cut short or foreign, set aside as gpu.json.aside1" in capsys.readouterr().out


def test_what_an_earlier_report_has_found_is_kept(bench: Bench) -> None:
    kept = {"status": "ok", "step": 3}
    (bench.out / "gpu.json").write_text(json.dumps({"parts": {"one": kept}}), encoding="utf-8")
    bench.add("one", "note(step=4)")
    bench.add("two", "note(step=5)")
    parts = bench.run(words=("two",))
    assert parts["one"] == kept
    assert parts["two"]["step"] == 5


CHILD = """import json, os, pathlib, sys, time; p = pathlib.Path(sys.argv[1])
p.with_suffix('.tmp').write_text(json.dumps({'pid': os.getpid()})); p.with_suffix('.tmp').replace(p); time.sleep(1000)
"""
DRIVER = f"""import sys; sys.path.insert(0, sys.argv[1]); import gpu, gpu_runner as r, pathlib
gpu.listen(); at = pathlib.Path(sys.argv[2])
p = r.Part("long", [sys.executable, "-c", {CHILD!r}, str(at / "long.json")], at / "long.json", 500, 0)
r.Runner(at, at, {{"parts": {{}}}}, {{}}, 600).run([p, p._replace(name="later", stage=1)], [])
"""


def lives(process: int) -> bool:
    """Whether it runs; one that has ended may be waited for by nobody."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_numbers_are_on_disk_when_the_script_itself_is_ended(tmp_path: Path, how: signal.Signals) -> None:
    """As soon as they are noted; on a polite end also that the rest was not run. Nothing goes on, however it ended."""
    script = subprocess.Popen([sys.executable, "-c", DRIVER, str(ROOT / "benchmarks"), str(tmp_path)], stderr=subprocess.PIPE)
    child = 0
    try:
        while not child:
            assert script.poll() is None, script.stderr.read() if script.stderr else ""
            if (tmp_path / "gpu.json").is_file():
                found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["parts"]["long"]
                child = found["pid"]
                assert found["status"] == "running"
            time.sleep(0.05)
        script.send_signal(how)
        script.communicate()
        parts = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["parts"]
        assert parts["long"]["pid"] == child
        if how != signal.SIGKILL:
            assert parts["long"]["status"] == "stopped: gpu.py was ended"
            assert parts["later"] == {"status": "not run", "reason": "gpu.py was ended"}
        deadline = time.monotonic() + 60
        while lives(child) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not lives(child)
    finally:
        script.kill()
        script.wait()
        if child and lives(child):
            os.kill(child, signal.SIGKILL)


def test_what_cannot_be_noted_leaves_nothing_that_runs(bench: Bench, runner: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several parts, each."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runner, "slots", lambda part: 3)
    monkeypatch.setattr(runner.Runner, "_note", full)
    for name in ("one", "two"):
        bench.add(name, f"note(pid=os.getpid()); pathlib.Path({str(bench.scratch)!r}, {name!r}).touch(); time.sleep(1000)")
    wait = "\nwhile not all(pathlib.Path({at!r}, name).exists() for name in ('one', 'two')): time.sleep(0.05)\nnote(step=1)"
    bench.add("quick", wait.format(at=str(bench.scratch)))
    with pytest.raises(OSError, match="No space"):
        bench.run()
    for name in ("one", "two"):
        assert not lives(json.loads((bench.scratch / f"{name}.json").read_text(encoding="utf-8"))["pid"])


class Closed(io.StringIO):
    """What nobody reads any more."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_nobody_who_reads_costs_no_part(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.add("one", "note(step=1)")
    monkeypatch.setattr(sys, "stdout", Closed())
    assert bench.run()["one"]["step"] == 1


ASKED = {
    "leaves a result": ("signal.signal(signal.SIGTERM, lambda *_: (note(last=2), os._exit(0)));", {"last": 2}),
    "does not hear": ("signal.signal(signal.SIGTERM, signal.SIG_IGN);", {"first": 1}),
}


@pytest.mark.parametrize(("code", "left"), ASKED.values(), ids=ASKED)
def test_a_part_at_its_limit_is_asked_before_it_is_ended(
    bench: Bench, runner: ModuleType, code: str, left: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "first" in left:
        monkeypatch.setattr(runner, "GRACE", 0.5)
    else:
        monkeypatch.setattr(runner, "GRACE", 1000.0)
    bench.add("long", f"{code} note(first=1); time.sleep(1000)")
    engine = runner.Runner(bench.out, bench.scratch, {"parts": {}}, dict(os.environ), 1000.0)
    job = runner._Job(bench.parts[0], dict(os.environ), time.monotonic() + 900.0, bench.scratch / "long.log")
    try:
        while not job.part.result.is_file() or not job.part.result.stat().st_size:
            assert not engine._ended(job)
            time.sleep(0.05)
        job.until = time.monotonic()
        while not engine._ended(job):
            time.sleep(0.05)
        found = bench.known()["long"]
        assert found["status"].startswith("stopped after ")
        assert left.items() <= found.items()
    finally:
        job.end()
        engine.lock.close()


def test_reports_are_packed_as_they_come(bench: Bench) -> None:
    report = "p = pathlib.Path(sys.argv[1]); p.with_suffix('.html').touch(); note(records=[])"
    bench.add("conformance one", report, "one/report.json")
    bench.add("look", f"import tarfile; note(names=tarfile.open({str(bench.out / 'reports.tar.gz')!r}).getnames())", stage=1)
    bench.add("conformance two", report, "two/report.json", stage=2)
    assert "one/report.html" in bench.run()["look"]["names"]
    with tarfile.open(bench.out / "reports.tar.gz") as archive:
        assert {"one/report.html", "two/report.html"} <= set(archive.getnames())


# --- order, lock and budget ------------------------------------------------------------------------------


def test_one_measures_at_a_time_and_nothing_is_proved_meanwhile(bench: Bench) -> None:
    proof = "began = time.monotonic(); time.sleep(0.3); note(began=began, ended=time.monotonic())"
    for number in range(3):
        bench.measures(f"measure {number}", 0.3, early=number == 0, stage=3 if number == 0 else 1)
        bench.add(f"proof {number}", proof, f"proof{number}.json", stage=number)
    parts = bench.run()
    assert {found["status"] for found in parts.values()} == {"ok"}
    spans = {name: (found["began"], found["ended"]) for name, found in parts.items()}
    for name, (began, ended) in spans.items():
        others = [span for other, span in spans.items() if other != name and not (name[:5] == other[:5] == "proof")]
        assert all(ended <= other[0] or other[1] <= began for other in others), name


def test_stages_follow_one_another_and_what_compiles_begins_early(bench: Bench) -> None:
    code = "BEGAN = time.monotonic(); {}; note(began=BEGAN, ended=time.monotonic())"
    released = bench.scratch / "released"
    hold = f"\nwhile not pathlib.Path({str(released)!r}).exists(): time.sleep(0.05)\n"
    bench.add("last", code.format(hold).replace("\n; ", "\n"), stage=3, early=True, alone=True)
    bench.add("second", code.format(f"pathlib.Path({str(released)!r}).touch()"), stage=1)
    bench.add("first", code.format("pass"), stage=0)
    parts = bench.run()
    assert parts["first"]["ended"] <= min(parts["second"]["began"], parts["last"]["began"])
    assert parts["second"]["ended"] <= parts["last"]["ended"]  # or it would wait for the file for ever
    assert parts["last"]["status"] == "ok"


def test_proofs_leave_time_to_measurements_and_take_what_is_left(bench: Bench) -> None:
    """A proof that would leave too little is put off until nothing is left to be measured."""
    code = "note(began=time.monotonic())"
    bench.add("proof", code, stage=2, spare=1000.0)
    bench.measures("measure", stage=3)
    bench.add("other", code, stage=3)
    parts = bench.run()
    assert {found["status"] for found in parts.values()} == {"ok"}
    assert parts["measure"]["ended"] <= parts["proof"]["began"]


def test_parts_are_looked_at_in_order(bench: Bench, runner: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one is taken out meanwhile: without time all are, one after the other."""
    monkeypatch.setattr(runner, "LEAST", 10.0)
    names = ["one", "two", "three", "four"]
    for name in names:
        bench.add(name, "note(step=1)")
    assert list(bench.run(seconds=5.0)) == names


def test_what_does_not_fit_is_not_run_and_says_so(bench: Bench, runner: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LEAST", 10.0)
    bench.add("late", "note(step=1)")
    found = bench.run(seconds=5.0)["late"]
    assert found["status"] == "not run"
    assert found["reason"].startswith("no time left: ")


def test_waiting_for_the_device_is_not_taken_from_a_part_s_limit(bench: Bench, runner: ModuleType) -> None:
    """Its time ends with the budget all the same."""
    bench.add("long", "time.sleep(1000)")
    engine = runner.Runner(bench.out, bench.scratch, {"parts": {}}, dict(os.environ), 1000.0)
    job = runner._Job(bench.parts[0], dict(os.environ), time.monotonic() + 100.0, bench.scratch / "long.log")
    try:
        before = job.until
        assert not engine._ended(job)
        assert job.until == before
        runner.waiting(job.part.result).touch()
        assert not engine._ended(job)
        assert job.until > before
        job.until = engine.deadline
        assert not engine._ended(job)
        assert job.until == engine.deadline
    finally:
        job.end()
        engine.lock.close()


def test_a_sentinel_that_passes_is_no_success(bench: Bench) -> None:
    record = "note(records=[dict(id='x', reason='', comparisons=1, status={!r})])"
    bench.add("caught", record.format("fail") + "; sys.exit(1)", "caught/report.json", fails=True)
    bench.add("not caught", record.format("pass"), "not/report.json", fails=True)
    parts = bench.run()
    assert parts["caught"]["status"] == "ok"
    assert parts["not caught"]["status"] == "expected a check that fails and none that is an error: ok"


@pytest.mark.parametrize("statuses", [["error"], ["fail", "error"]])
def test_a_sentinel_that_ends_without_an_answer_is_no_success(bench: Bench, statuses: list[str]) -> None:
    records = [{"id": status, "reason": "", "comparisons": 1, "status": status} for status in statuses]
    bench.add("sentinel", f"note(records={records}); sys.exit(3)", "sentinel/report.json", fails=True)
    assert bench.run()["sentinel"]["status"] == "expected a check that fails and none that is an error: failed with 3"


def test_a_report_that_was_cut_short_does_not_pass(bench: Bench) -> None:
    records = [{"id": reason, "reason": reason, "comparisons": 0, "status": "not run"} for reason in ("interrupted", "another")]
    for name, some in (("cut", records), ("whole", records[1:])):
        bench.add(name, f"note(records={some})", f"{name}/report.json")
    parts = bench.run()
    assert [parts[name]["verdict"] for name in ("cut", "whole")] == ["incomplete", "pass"]


# --- the table -------------------------------------------------------------------------------------------


def options(tmp_path: Path, **changes: Any) -> argparse.Namespace:
    given = {"out": tmp_path, "scratch": tmp_path, "device": "cuda", "authors": tmp_path, "data": None, "profile": "smoke"}
    return argparse.Namespace(**given | {"batch_sizes": [512, 1024], "seconds": 540.0, "tiny": False} | changes)


def test_the_parts_of_a_visit_have_names_and_files_of_their_own(visit: ModuleType, tmp_path: Path) -> None:
    for changes in ({}, {"tiny": True, "device": "cpu", "authors": None}):
        parts = list(visit.parts(options(tmp_path, **changes)))
        assert len({part.name for part in parts}) == len({part.result for part in parts}) == len(parts)
        assert [part.stage for part in parts if not part.early] == sorted(part.stage for part in parts if not part.early)
        assert all(part.alone for part in parts if part.early)
        assert all(Path(word).is_file() for part in parts for word in part.command if word.endswith(".py"))


def test_checks_of_the_suite_have_limits_well_within_their_part_s(visit: ModuleType, tmp_path: Path) -> None:
    parts = [part for part in visit.parts(options(tmp_path)) if part.result.name == "report.json"]
    runs = [part for part in parts if "cross" not in part.command]
    assert len(runs) == len(parts) - 1 == 14
    for part in runs:
        assert float(part.command[part.command.index("--limit") + 1]) == max(40.0, part.limit / 3)


def test_what_needs_a_gpu_is_told_where_there_is_none(visit: ModuleType, tmp_path: Path, bench: Bench) -> None:
    bench.parts = [part for part in visit.parts(options(tmp_path, tiny=True, device="cpu")) if part.lacks]
    parts = bench.run()
    assert {name for name in parts if name.startswith("conformance")} == {"conformance torch tf32", "conformance jax tf32"}
    rounds, records = "it needs a CUDA device: no CPU rounds to TF32", "a graph is recorded on a CUDA device"
    assert {name: found["reason"] for name, found in parts.items()} == {
        name: records if "graphs" in name else rounds for name in parts
    }
    assert any("graphs" in name for name in parts)
    assert not any(part.lacks for part in visit.parts(options(tmp_path)))


def test_proofs_can_not_take_the_time_of_what_was_compiled(visit: ModuleType, tmp_path: Path) -> None:
    given = options(tmp_path)
    parts = list(visit.parts(given))
    assert all(part.spare >= 0.3 * given.seconds for part in parts if part.stage == visit.PROVE)
    assert {part.name for part in parts if part.early} == {"joint torch compiled bf16-mixed 512", "joint jax bf16-mixed 512"}


def test_the_neuron_s_kernels_are_tested_on_the_device(visit: ModuleType, tmp_path: Path) -> None:
    (part,) = [part for part in visit.parts(options(tmp_path)) if part.name == "tests torch"]
    assert [Path(word).name for word in part.command[-3:]] == ["test_lif.py", "test_norm_triton.py", "test_norm_activation.py"]
    assert part.command[part.command.index("--device") + 1] == "cuda"
    assert "--on-device" in part.command
