"""Recipes: what their words stand for, legs that go on where the last one stopped, and the table of their runs."""

from __future__ import annotations

import itertools
import json
import math
import re
import time
from pathlib import Path

import numpy as np
import pytest
from training_runs import TINY, assert_equal_runs, quiet, tiny

import twinspike as ts
from twinspike.zoo import ZOO
from twinspike_training import loop, recipes
from twinspike_training.config import load_config
from twinspike_training.legs import NEVER, run_leg
from twinspike_training.report import as_markdown, report
from twinspike_training.run import RunFolder
from twinspike_training.synops import synaptic_operations

BOOK = recipes.book()


def test_every_word_of_every_recipe_makes_a_config() -> None:
    names = [
        "-".join(words)
        for name, data in BOOK.data.items()
        for network, variant in itertools.product(data.networks, ("", *BOOK.variant))
        for words in [[name, network, f"t{data.time_steps[0]}", *filter(None, [variant])]]
    ]
    names += [f"cifar10-resnet20-{size}" for size in BOOK.size]
    for name in names:
        config = load_config(name)
        assert config.recipe == name
        assert config.network in ZOO
    assert len(names) > 60


def test_words_change_what_they_say_and_nothing_else() -> None:
    base, plain = load_config("digits"), load_config("digits-t6-plain")
    assert plain.method.time_steps == 6
    assert plain.method.factorization.scope == "none"
    assert (plain.method.loss.alpha, plain.method.loss.beta) == (0, 0)
    assert (plain.method.loss.pairs, plain.method.loss.supervised) == ("none", "snn_last")
    assert (plain.optimizer, plain.schedule, plain.training, plain.data) == (
        base.optimizer,
        base.schedule,
        base.training,
        base.data,
    )
    assert load_config("cifar100").method == load_config("cifar100_resnet18").method
    # A table of another kind starts afresh, one of the same kind keeps what is not named.
    assert load_config("cifar10-best").method.factorization.orthogonality == ts.Retract(every=100)
    assert load_config("cifar10-resnet20-small").optimizer == ts.SGD(momentum=0.9, weight_decay=5e-4)


def test_the_two_by_two_of_the_ablation() -> None:
    sharing = {
        name: load_config(f"digits{name}").method.factorization.scope for name in ("-exits", "-sharing", "-distillation", "")
    }
    taught = {name: load_config(f"digits{name}").method.loss for name in sharing}
    assert sharing == {"-exits": "none", "-sharing": "all_convs", "-distillation": "none", "": "all_convs"}
    assert taught["-exits"] == taught["-sharing"] == ts.Loss(alpha=0.0, beta=0.0, pairs="none")
    assert taught["-distillation"] == taught[""] == ts.Loss()


def test_published_values_are_those_of_recipes() -> None:
    for value in recipes.published():
        assert value.network in BOOK.data[value.data].networks
        assert 0 < value.accuracy < 100
        assert value in recipes.values_for(f"{value.data}-{value.network}-t{value.time_steps}", value.time_steps)
    assert recipes.values_for("no-recipe", 4) == ()


SMALL = ("backend=numpy", "precision=f64", "width=2", "method.time_steps=2", "data.limit=96", "data.workers=0",
         "training.batch_size=24", "training.epochs=2")  # fmt: skip


def test_legs_end_where_one_leg_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = [*SMALL, f"out={json.dumps(str(tmp_path))}"]
    whole = run_leg(["digits"], 1, [*changes, f"out={json.dumps(str(tmp_path / 'whole'))}"], NEVER, quiet)
    assert (whole.left, whole.signalled) == ((), False)
    now, calls = time.monotonic, itertools.count()
    # Each look at the clock is a second: a leg of some seconds stops within an epoch.
    monkeypatch.setattr(time, "monotonic", lambda: now() + next(calls))
    legs = 0
    while True:
        leg = run_leg(["digits", "digits-plain"], 2, changes, 20.0, quiet)
        legs += 1
        assert not leg.signalled
        assert legs < 60
        if not leg.left:
            break
    assert legs > 4
    assert [path.name for path in leg.folders] == ["digits-seed0", "digits-plain-seed0", "digits-seed1", "digits-plain-seed1"]
    assert_equal_runs(RunFolder(leg.folders[0]), RunFolder(whole.folders[0]))
    before = {path: (path / "metrics.jsonl").stat().st_mtime_ns for path in leg.folders}
    run_leg(["digits", "digits-plain"], 2, changes, NEVER, quiet)  # what is finished is left alone
    assert before == {path: (path / "metrics.jsonl").stat().st_mtime_ns for path in leg.folders}
    with pytest.raises(ts.SpecError, match=r"^learning_rate: a resumed run keeps 0\.1, got 0\.2; start a new run"):
        run_leg(["digits"], 1, [*changes, "learning_rate=0.2"], NEVER, quiet)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    out = tmp_path_factory.mktemp("report")
    return run_leg(["digits", "digits-plain"], 3, [*SMALL, f"out={json.dumps(str(out))}"], NEVER, quiet).folders


def _last(path: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((path / "metrics.jsonl").read_text().splitlines()[-1])
    return found


def test_a_row_is_the_mean_of_its_seeds_with_its_error(runs: tuple[Path, ...]) -> None:
    found = report(runs)
    assert [row.n for row in found.rows] == [3, 3]
    row, values = found.rows[1], [_last(path)["accuracy_snn"] for path in runs[1::2]]
    assert row.last_snn.mean == pytest.approx(np.mean(values), rel=1e-12)
    assert row.last_snn.error == pytest.approx(np.std(values, ddof=1) / math.sqrt(3), rel=1e-12)
    assert row.recipe.startswith("digits-plain (data.limit=96, method.time_steps=2, ")
    assert (row.backend, row.epochs, row.chosen_on, row.published) == ("numpy f64", 2, "test", ())
    assert all(row.best_snn.mean >= row.last_snn.mean for row in found.rows)
    assert row.hours.mean > 0
    assert re.search(r"\(\d+ cores?\)", row.hardware[0])


def test_the_table_says_what_its_numbers_are(runs: tuple[Path, ...]) -> None:
    text = as_markdown(report(runs))
    assert {line.count(" | ") for line in text[:4]} == {13}
    assert "±" in text[2]
    assert any("too good" in line for line in text)


def test_one_run_has_no_error_and_an_unfinished_one_no_row(runs: tuple[Path, ...], tmp_path: Path) -> None:
    config = tiny(tmp_path, "name=part", "training.epochs=5")
    stopped = loop.start(config, quiet(), until=0.0)
    assert not stopped.finished
    found = report([runs[0], stopped.folder.path])
    assert [row.n for row in found.rows] == [1]
    assert found.rows[0].last_snn.error is None
    assert found.unfinished == (f"{tmp_path}/part: 0 of 5 epochs",)
    assert any("left out, unfinished" in line for line in as_markdown(found))


def test_a_run_counts_once(runs: tuple[Path, ...]) -> None:
    with pytest.raises(ts.SpecError, match=r"^report: expected each seed of a recipe once, got "):
        report([runs[0], runs[0]])


def test_a_published_value_stands_beside_its_own_setting_alone(tmp_path: Path) -> None:
    changes = [change for change in TINY if "time_steps" not in change]
    for name, more, count in (("digits", (), 0), ("own", ("recipe=nowhere",), 0), ("cifar", ("recipe=cifar100",), 0)):
        run = loop.start(tiny(tmp_path, *changes, *more, f"name={name}"), quiet()).folder
        assert len(report([run.path]).rows[0].published) == count
    assert [value.accuracy for value in recipes.values_for("cifar100", 4)] == [77.39]
    assert recipes.values_for("cifar100", 6) == ()


def test_synaptic_operations_by_hand() -> None:
    net = ts.network("digits_cnn", width=2)
    rates = {name: (i + 1) / 8 for i, name in enumerate(net.activations)}
    macs = {layer.name: layer.macs for layer in ts.cost.cost(net, ts.Method(time_steps=3)).layers}
    found = synaptic_operations(net, ts.Method(time_steps=3), rates)
    stem, two, three = (rates[f"{name}.act"] for name in ("stem", "stage2", "stage3"))
    by_hand = 3 * (macs["stage2.conv"] * stem + macs["stage3.conv"] * two + macs["main.head"] * three)
    assert found.spikes == by_hand  # the branches are not needed for the main exit
    assert found.dense == macs["stem.conv"]  # a static image's stem is computed once
    event = ts.network("digits_cnn", width=2, input_shape=(2, 8, 8), event=True)
    assert synaptic_operations(event, ts.Method(time_steps=3), rates).dense == 3 * 2 * macs["stem.conv"]
