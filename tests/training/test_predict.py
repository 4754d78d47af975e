"""`twinspike predict`: files are classified as the data's own samples are, and what can't be is one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training_runs import train
from typer.testing import CliRunner, Result

from twinspike_training.checkpoint import load
from twinspike_training.commands import app
from twinspike_training.evaluation import evaluate
from twinspike_training.predict import predict
from twinspike_training.run import open_run, prepare, read_config


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("predict"), "name=a", "training.epochs=1", "data.test_limit=16").folder.path


def test_the_data_s_own_samples_written_as_files_are_classified_as_evaluation_does(folder: Path, tmp_path: Path) -> None:
    opened = open_run(folder)
    ready = prepare(read_config(opened))
    state = ready.program.load(load(opened.checkpoint("best")).state)
    ((images, labels),) = ready.dataset.test_batches(16)
    level = np.round((images * 0.3756 + 0.3045) * 255).astype(np.uint8)
    files = []
    for i, pixels in enumerate(level[:, 0]):
        files.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(pixels).save(files[-1])
    answers = predict(ready, state, files)
    shown = ready.dataset.present(level.astype(np.float32) / np.float32(255))
    logits = ready.program.evaluate(state, shown)
    for twin in ("ann", "snn"):
        expected = np.asarray(getattr(logits, f"logits_{twin}"))[-1]
        assert [answer.twins[twin].number for answer in answers] == expected.argmax(axis=-1).tolist()
        for answer, row in zip(answers, expected, strict=True):
            p = np.array(answer.twins[twin].probabilities)
            e = np.exp(row - row.max())
            assert p.tolist() == (e / e.sum()).tolist()
    assert evaluate(ready, state).samples == len(labels)


def test_labels_and_probabilities_are_printed_for_a_person_and_as_json(folder: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8), 100).save(tmp_path / "grey.png")
    Image.new("RGB", (8, 8), (100, 100, 100)).save(tmp_path / "colour.png")
    names = [str(tmp_path / name) for name in ("grey.png", "colour.png")]
    told = json.loads(run("predict", str(folder), *names, "--json").stdout)
    assert told["classes"] == [str(k) for k in range(10)]
    grey, colour = told["images"]
    assert grey["twins"] == colour["twins"]
    assert sum(grey["twins"]["snn"]["probabilities"]) == pytest.approx(1, abs=10 * 2**-52)  # ten shares, one rounding each
    one = run("predict", str(folder), names[0], "--twin", "ann").stdout
    assert "snn" not in one
    share = grey["twins"]["ann"]["probabilities"][grey["twins"]["ann"]["number"]]
    assert f"{share:.2%}" in one


def test_an_image_that_can_t_be_classified_is_one_line(folder: Path, tmp_path: Path) -> None:
    Image.new("L", (9, 8)).save(tmp_path / "wide.png")
    (tmp_path / "text.png").write_text("no image")
    for name, line in (
        ("wide.png", "expected 8 x 8 pixels, as the run's, got 9 x 8; resize it, or let --resize do so"),
        ("text.png", "can't be decoded: neither PNG nor JPEG; replace or remove it"),
    ):
        result = run("predict", str(folder), str(tmp_path / name))
        assert (result.exit_code, result.stderr) == (2, f"error: {tmp_path / name}: {line}\n")
    result = run("predict", str(folder), "nowhere.png")
    assert (result.exit_code, result.stderr) == (2, "error: image: expected a PNG or JPEG file, got no such file: nowhere.png\n")
    result = run("predict", str(folder), str(tmp_path / "wide.png"), "--twin", "cnn")
    assert (result.exit_code, result.stderr) == (2, "error: --twin: expected snn, ann or both, got cnn\n")
    assert run("predict", str(folder), str(tmp_path / "wide.png"), "--resize").exit_code == 0
