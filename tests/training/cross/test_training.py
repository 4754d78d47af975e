"""One run over several backends: what one wrote, the next continues."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_runs import TINY, lines, quiet, train

from twinspike.errors import SpecError
from twinspike_training import agreement, checkpoint, loop
from twinspike_training.config import load_config
from twinspike_training.evaluation import evaluate
from twinspike_training.run import prepare, read_config


def test_a_run_goes_through_three_backends(tmp_path: Path) -> None:
    step = ("schedule.kind=constant", "precision=f64")
    folder = train(tmp_path, *step, "backend=torch", "training.epochs=1").folder
    whole = train(tmp_path / "whole", *step, "backend=numpy", "training.epochs=3").folder
    for epochs, backend in ((2, "jax"), (3, "numpy")):
        wanted = load_config(str(folder.config), [f"backend={backend}", f"training.epochs={epochs}"])
        assert loop.resume(folder, wanted, quiet()).finished
        header = checkpoint.load(folder.checkpoint("last")).header
        assert (header.backend, header.epoch) == (backend, epochs)
    ours, theirs = lines(folder), lines(whole)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]


def test_each_backend_evaluates_a_checkpoint_alike(tmp_path: Path) -> None:
    folder = train(tmp_path, "training.epochs=1").folder
    found = checkpoint.load(folder.checkpoint("last"))
    results = []
    for backend in ("numpy", "torch", "jax"):
        config = load_config(str(folder.config), [f"backend={backend}"])
        ready = prepare(config, found.header.network)
        results.append(evaluate(ready, ready.program.load(found.state)))
    assert read_config(folder).backend == "numpy"
    for result in results[1:]:
        assert result.accuracy_exits_snn == results[0].accuracy_exits_snn
        assert result.accuracy_exits_ann == results[0].accuracy_exits_ann
        assert result.spike_rates == pytest.approx(results[0].spike_rates, rel=1e-12)


@pytest.mark.parametrize("other", ["torch", "jax"])
def test_backends_agree_with_the_reference(other: str) -> None:
    assert agreement.agreement("numpy", other, load_config("digits", [*TINY, f"name={other}"]), steps=2) == 0


@pytest.mark.parametrize("by", ["polar", "qr"])
@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
def test_a_run_that_diverges_under_retraction_ends_in_the_line_about_its_loss(tmp_path: Path, backend: str, by: str) -> None:
    diverging = ("schedule.kind=constant", "learning_rate=1e300", "precision=f64", "training.log_every=100")
    retracted = ("kind=retract", f"by={by}", "every=1")
    orthogonality = [f"method.factorization.orthogonality.{setting}" for setting in retracted]
    with pytest.raises(SpecError, match=r"^loss: expected a finite number, got (nan|inf) at step [2-4]; [^\n]*$"):
        train(tmp_path, f"backend={backend}", *diverging, *orthogonality)
