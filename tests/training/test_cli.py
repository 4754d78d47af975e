"""The command line: what each command prints, and one line with exit code 2 for every refusal."""

from __future__ import annotations

import builtins
import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from training_runs import TINY, lines
from typer.testing import CliRunner, Result

import twinspike as ts
from twinspike.boundary import legible
from twinspike.network import from_json
from twinspike.registry import Availability
from twinspike_training import cli, commands, metrics
from twinspike_training.commands import app
from twinspike_training.run import open_run

SETS = [part for change in TINY for part in ("--set", change)]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli")
    result = run("train", *SETS, "--out", str(out), "--name", "a")
    assert result.exit_code == 0, result.output
    assert "epoch 2/2  test accuracy snn " in result.stdout
    assert f"finished {out}/a after 8 steps; best test accuracy snn " in result.stdout
    return out / "a"


def test_options_go_before_what_the_config_says(trained: Path) -> None:
    result = run(
        "train", "digits", *SETS, "--out", str(trained.parent), "--name", "b", "--seed", "5", "--set", "training.epochs=1"
    )
    assert result.exit_code == 0, result.output
    config = json.loads((trained.parent / "b" / "config.json").read_text())
    assert (config["seed"], config["training"]["epochs"], config["backend"]) == (5, 1, "numpy")


NO_RUN = (
    "run: expected a run's folder with config.json, got nowhere (no such file); "
    "name the folder that training printed, such as runs/digits_cnn-001"
)
NUMPY = ("train", "--backend", "numpy", "--precision")

REFUSALS = {
    ("train", "digit"): (
        "config: expected a file, one of authors, cifar100_resnet18, cifar10_resnet18, digits, nmnist, or a recipe "
        "(twinspike recipe lists them), got digit; did you mean 'digits'?"
    ),
    ("recipe", "digits-plan"): (
        "recipe digits-plan: expected after digits any of digits_cnn, t and a number, plain, exits, sharing, distillation, "
        "best, tet, small, got plan; did you mean 'plain'?"
    ),
    ("recipe", "digits-t2-t4"): "recipe digits-t2-t4: expected at most one number of time steps, got another, t4",
    ("recipe", "digits", "--seeds", "0"): "--seeds: expected a whole number >= 1, got 0",
    ("recipe", "digits", "digits"): "recipe: expected different recipes, got digits, digits",
    ("recipe", "digits", "--set", "seed=3"): "--set: expected no seed, which a recipe's runs count, got seed",
    ("report", "nowhere"): NO_RUN,
    ("train", "--set", "seeed=1"): "digits: seeed: unknown key; did you mean 'seed'?",
    ("train", "--backend", "nope"): f"backend: expected one of {', '.join(ts.names())} or 'module:object', got nope",
    (*NUMPY, "bf16-mixed"): "precision of backend 'numpy': expected one of f64, got bf16-mixed",
    (*NUMPY, "f64", "--device", "cuda"): "device of backend 'numpy': expected one of cpu on this machine, got cuda",
    ("train", *SETS, "--set", "training.batch_size=97"): ("batch_size: expected 1 to 96, the number of training samples, got 97"),
    ("train", "--resume", "nowhere"): NO_RUN,
    ("train", "digits", "--resume", "x"): "CONFIG: expected none with --resume, which keeps the run's own, got digits",
    ("evaluate", "nowhere"): NO_RUN,
    ("compare", "nowhere"): NO_RUN,
    ("plot", "nowhere"): NO_RUN,
    ("describe", "resnet17"): (
        "network: expected one of digits_cnn, resnet18, resnet34, resnet19, resnet20, vgg16, or a .json file, "
        "got resnet17; did you mean 'resnet19'?"
    ),
    ("describe", "resnet18", "--input", "3,32"): "--input: expected three whole numbers C,H,W such as 3,32,32, got 3,32",
    ("describe", "net.json", "--width", "3"): (
        "describe: expected no sizes with a description, which has its own, got ['--width']"
    ),
    ("check", "numpy", "numpy", *SETS, "--steps", "5"): "steps: expected at most the 4 of one epoch, got 5",
    ("check", "numpy", "numpy", *SETS, "--steps", "0"): "steps: expected a whole number >= 1, got 0",
}


@pytest.mark.parametrize("arguments", REFUSALS, ids=lambda arguments: f"{arguments[0]} {arguments[-1]}")
def test_a_refusal_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (2, f"error: {REFUSALS[arguments]}\n")
    assert list(tmp_path.iterdir()) == []  # what is refused leaves nothing behind


def test_a_stopped_run_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = metrics.MetricsLog.add

    def interrupt(self: Any, pending: Any) -> None:
        add(self, pending)
        if pending.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(metrics.MetricsLog, "add", interrupt)
    result = run("train", *SETS, "--out", str(tmp_path), "--name", "a")
    assert result.exit_code == 130
    assert f"stopped after step 5; go on with: twinspike train --resume {tmp_path}/a\n" in result.stdout
    monkeypatch.undo()
    result = run("train", "--resume", str(tmp_path / "a"))
    assert result.exit_code == 0
    assert "resumed after step 5 of 8" in result.stdout


def test_evaluate_finds_what_training_found(trained: Path) -> None:
    result = run("evaluate", str(trained), "--checkpoint", "last", "--json")
    assert result.exit_code == 0, result.output
    found, logged = json.loads(result.stdout), lines(open_run(trained))[-1]
    counts = found.pop("energy")
    assert found == {key: logged[key] for key in found}
    assert "dense" not in counts["snn"]  # nothing was traced
    counts = json.loads(run("evaluate", str(trained), "--energy", "30", "--json").stdout)["energy"]
    assert (counts["ann"]["samples"], counts["ann"]["acs"], counts["snn"]["dense"]) == (30, 0, 2 * counts["ann"]["dense"])
    result = run("evaluate", str(trained), "--energy", "-1")
    assert (result.exit_code, result.stderr) == (2, "error: --energy: expected a number of samples >= 0, got -1\n")
    result = run("evaluate", str(trained), "--energy", "30")
    assert "effective ACs, a sample" in result.stdout
    assert "counted on 30 samples" in result.stdout
    assert f"{found['samples']} samples" in result.stdout
    assert "main.head" in result.stdout
    result = run("evaluate", str(trained), "--checkpoint", "first")
    assert (result.exit_code, result.stderr) == (2, "error: checkpoint: expected last or best, got first\n")


def test_a_trained_run_is_looked_at_where_its_data_are_and_otherwise(trained: Path, tmp_path: Path) -> None:
    words = ("evaluate", str(trained), "--json")
    result = run(*words, "--set", "method.time_steps=5", "--set", "data.workers=1", "--backend", "jax", "--precision", "f32-ieee")
    assert result.exit_code == 0, result.output
    at_five = json.loads(result.stdout)
    assert at_five["samples"] == 360
    assert at_five["accuracy_ann"] == json.loads(run(*words).stdout)["accuracy_ann"]  # T is the spiking twin's alone
    result = run("plot", str(trained), "--out", str(tmp_path), "--set", "precision=f64", "--set", "training.log_every=5")
    assert result.exit_code == 0, result.output
    for command in ("evaluate", "plot"):
        result = run(command, str(trained), "--set", "width=3")
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert "expected the config that it was trained with, width = 2, got 3" in result.stderr
        result = run(command, str(trained), "--set", "data.path=/moved")
        assert (result.exit_code, result.stderr) == (
            2,
            "error: config: data.path: expected nothing with data.name = 'digits', got /moved\n",
        )


@pytest.mark.parametrize(
    "name", ["a b", "\x1b[31mred", "$x_", "caf\udce9", "\x7f\n", "2024-01-01", "true", ":smile:", "[b]", "-x"]
)
def test_a_run_is_called_what_a_file_system_accepts(tmp_path: Path, name: str) -> None:
    result = run("train", *SETS, "--out", str(tmp_path), f"--name={name}")
    assert result.exit_code == 0, result.output
    assert f"finished {legible(str(tmp_path / name))} after 8 steps" in result.stdout
    assert result.stdout.replace("\n", "").isprintable()
    for command in ("evaluate", "plot", "compare", "train --resume"):
        words = command.split()
        out = ["--out", str(tmp_path / "c.png")] if command == "compare" else []
        result = run(*words, str(tmp_path / name), *out)
        assert result.exit_code == 0, result.output
        assert result.stdout.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("table", "key", "value"), [("method", "time_steps", 3), ("training", "batch_size", 12), ("", "seed", 1), ("", "width", 3)]
)
@pytest.mark.parametrize("command", ["evaluate", "plot", "train --resume"])
def test_a_config_altered_after_training_is_refused(
    trained: Path, tmp_path: Path, command: str, table: str, key: str, value: int
) -> None:
    folder = tmp_path / "a"
    shutil.copytree(trained, folder)
    config = json.loads((folder / "config.json").read_text())
    (config[table] if table else config)[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    result = run(*command.split(), str(folder), *(["--out", str(tmp_path / "p")] if command == "plot" else []))
    assert result.exit_code == 2
    assert f"{table}.{key}".removeprefix(".") in result.stderr
    assert result.stderr.rstrip("\n").endswith(f"got {value}" + ("; start a new run to change it" if "train" in command else ""))


def test_describe_shows_layers_and_totals(tmp_path: Path) -> None:
    result = run("describe", "resnet18", "--classes", "10", "--input", "3,32,32")
    assert result.exit_code == 0, result.output
    assert "parameters (trained): 24,703,471" in result.stdout
    assert "ann 1.19 GFLOP, snn 4.76 GFLOP" in result.stdout
    result = run("describe", "digits_cnn", "--width", "3", "--json")
    network = from_json(result.stdout)
    assert network == ts.network("digits_cnn", width=3)
    (tmp_path / "n.json").write_text(result.stdout)
    result = run("describe", str(tmp_path / "n.json"), "--time-steps", "2")
    assert "T = 2" in result.stdout


def test_backends_are_listed() -> None:
    result = run("backends")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in ts.names())


def test_a_backend_shows_its_marks_and_for_which_specification_it_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mark = ts.Mark(
        backend="own", specification="0.1.0", profile="ci", precision="f64", device="cpu", compiled=False, date="2026-01-31",
        passed=3, unsupported=2, report="ab" * 32,
    )  # fmt: skip
    able = ts.Capabilities(
        operations=frozenset(), networks=False, precisions=frozenset({"f64"}), devices=("cpu",), compiled=False, versions={},
        specification="0.0.9", conformance=(mark,),
    )  # fmt: skip
    monkeypatch.setattr(commands, "survey", lambda: (Availability("own", able, None),))
    printed = " ".join(run("backends").stdout.split())
    assert "own: written for version 0.0.9 of the specification, this is 0.1.0" in printed
    told = "own: conformed to 0.1.0 in f64 on cpu, profile ci, 2026-01-31: 3 checks, 2 not supported; report abababababab"
    assert told in printed


def test_plot_draws_every_picture(trained: Path, tmp_path: Path) -> None:
    result = run("plot", str(trained), "--out", str(tmp_path / "p"), "--index", "3")
    assert result.exit_code == 0, result.output
    written = result.stdout.split()
    assert [Path(path).name for path in written] == [
        "learning_curves.png", "spike_rates.png", "orthogonality.png", "singular_values.png", "spikes.png"
    ]  # fmt: skip
    for path in written:
        content = Path(path).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 10_000
    result = run("plot", str(trained), "--out", str(tmp_path / "r"), "--style", "paper")
    assert (result.exit_code, result.stderr) == (0, "")
    for path in map(Path, result.stdout.split()):
        text = path.with_suffix(".svg").read_text(encoding="utf-8")
        assert path.read_bytes().startswith(b"%PDF-")
        assert float(re.search(r'<svg [^>]*?width="([\d.]+)pt"', text, re.DOTALL)[1]) <= 7 * 72  # type: ignore[index]
        assert "<text" in text  # letters, not outlines
    result = run("plot", str(trained), "--style", "poster")
    assert (result.exit_code, result.stderr) == (2, "error: --style: expected screen or paper, got poster\n")
    result = run("plot", str(trained), "--out", str(tmp_path / "q"), "--index", "360")
    assert (result.exit_code, result.stderr) == (2, "error: index: expected a test image, 0 to 359, got 360\n")


def test_compare_finds_the_first_difference(trained: Path, tmp_path: Path) -> None:
    run("train", *SETS, "--out", str(tmp_path), "--name", "same")
    run("train", *SETS, "--out", str(tmp_path), "--name", "other", "--set", "schedule.floor=0.09")
    picture = tmp_path / "c.png"
    result = run("compare", str(trained), str(tmp_path / "same"), str(tmp_path / "other"), "--out", str(picture))
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if "(numpy)" in line}
    assert "none" in rows["same"]
    # The first step's rate is the peak in both; the second step's differs, and so the third step's loss.
    assert "step 3" in rows["other"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "twinspike_training.commands":
            raise ModuleNotFoundError(name="typer")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: package 'typer' is not installed; install it with: pip install 'twinspike[train]'\n"
