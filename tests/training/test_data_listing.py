"""Which files of a folder are samples: ImageFolder's rule, every exception said, and no way out of the data set."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from twinspike.errors import SpecError
from twinspike_training.commands import app
from twinspike_training.data import DataConfig, Dataset, open_dataset

READ_THERE = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Suffixes that torchvision's ImageFolder takes, by its documentation."""


def image(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(file)
    return file


def image_folder(root: Path) -> list[tuple[str, int]]:
    """Samples as `DatasetFolder.make_dataset` of torchvision documents them: sorted classes, walks and names."""
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    return [
        (os.path.join(where, name), label)
        for label, kind in enumerate(classes)
        for where, _, names in sorted(os.walk(root / kind, followlinks=True))
        for name in sorted(names)
        if name.lower().endswith(READ_THERE)
    ]


def opened(root: Path) -> Dataset:
    return open_dataset(DataConfig(name="folder", path=str(root), workers=0, augment="none"), time_steps=2)


def samples(root: Path) -> list[tuple[str, int]]:
    split = opened(root)._source.train
    return list(zip(map(str, split._files), split.labels.tolist(), strict=True))  # type: ignore[attr-defined]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of two images in both parts."""
    for part in ("train", "val"):
        for kind in ("a", "b"):
            for name in ("0.png", "1.JPG"):
                image(tmp_path / "d" / part / kind / name)
    return tmp_path / "d"


def test_the_samples_are_those_of_image_folder(root: Path, tmp_path: Path) -> None:
    train = root / "train"
    for name in (
        "a/z.jpeg",
        "a/images/x.png",
        "a/images.more/x.png",
        "a/images-/x.png",
        "a/images/deep/er/y.png",
        "B/q.png",
        "a/Z.png",
    ):
        image(train / name)
    elsewhere = image(tmp_path / "elsewhere" / "linked.png").parent
    (train / "b" / "linked").symlink_to(elsewhere)
    (train / "c").symlink_to(elsewhere)
    for name in ("B", "c"):
        image(root / "val" / name / "0.png")
    assert samples(root) == image_folder(train)
    assert len(samples(root)) == 13
    assert opened(root).classes == ("B", "a", "b", "c")
    assert opened(root).notes == ()


def test_what_is_left_out_is_counted_and_said(root: Path) -> None:
    train = root / "train"
    for i in range(3):
        (train / "a" / f"m{i}.bmp").touch()
        (train / "a" / f"l{i}.jpg").symlink_to("/gone/x.jpg")
    for name in ("a/x.WebP", "b/deep/y.webp", "b/README", "notes.txt"):
        (train / name).parent.mkdir(exist_ok=True)
        (train / name).touch()
    (train / "b" / "deep" / "x\x1b[2J.\x1b[2J").touch()
    (train / "b" / "deep" / "up").symlink_to(train / "b")
    os.mkfifo(root / "val" / "a" / "pipe.png")
    assert opened(root).notes == (
        f"data.path {root}: 13 of 21 files left out: .bmp 3, dead links 3, .webp 2, .\\x1b[2j 1, beside the class folders 1, "
        "links in a circle 1, no regular files 1, without a suffix 1; samples are .png, .jpg, .jpeg below class folders",
    )
    assert opened(root).train_size == 4


def test_a_test_part_that_is_not_read_is_said(root: Path) -> None:
    (root / "test").mkdir()
    assert opened(root).notes == (f"data.path {root}: tested on val; the folder test is not read",)


def test_commands_say_what_is_left_out(root: Path, tmp_path: Path) -> None:
    (root / "train" / "a" / "x.bmp").touch()
    line = f"data.path {root}: 1 of 9 files left out: .bmp 1; samples are .png, .jpg, .jpeg below class folders"
    sets = ["backend=numpy", "precision=f64", "width=2", "data.name=folder", f'data.path="{root}"', "data.workers=0"]
    sets += ["training.batch_size=4", "training.epochs=1", f'out="{tmp_path}"', "name=run"]
    run = CliRunner().invoke(app, ["train", *(part for text in sets for part in ("--set", text))])
    assert run.exit_code == 0, run.output
    assert line in run.stdout.splitlines()
    tested = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run"), "--json"])
    assert tested.exit_code == 0, tested.output
    assert (tested.stderr, json.loads(tested.stdout)["samples"]) == (f"{line}\n", 4)


def test_a_class_without_images_is_refused(root: Path) -> None:
    (root / "train" / "c" / "deep").mkdir(parents=True)
    (root / "train" / "c" / "deep" / "x.bmp").touch()
    with pytest.raises(SpecError, match=r"train.c: expected images \(\.png, \.jpg, \.jpeg\), got none"):
        opened(root)


def annotate(root: Path, content: bytes) -> Path:
    for i in range(3):
        image(root / "val" / "images" / f"{i}.png")
    (root / "val" / "val_annotations.txt").write_bytes(content)
    return root


def test_annotations(root: Path) -> None:
    data = opened(annotate(root, b"\xef\xbb\xbf1.png\tb\t0\t0\n\n0.png\ta\n\n"))
    assert data._source.test.labels.tolist() == [0, 1]
    assert data.notes == (
        f"data.path {root}: 1 of 7 files left out: without a line in val_annotations.txt 1; "
        "samples are .png, .jpg, .jpeg below class folders",
    )


@pytest.mark.parametrize(
    "name",
    [
        "../../secret.png",
        "{root}/secret.png",
        "./0.png",
        "../images/0.png",
        "sub/0.png",
        "..",
        ".",
        "",
        "none.png",
        "0.png\0",
        "x" * 5000,
    ],
)
def test_an_annotation_names_an_image_of_its_folder_and_no_other(root: Path, name: str) -> None:
    image(root / "secret.png")
    annotate(root, b"")
    image(root / "val" / "images" / "sub" / "0.png")
    line = f"{name.format(root=root)}\ta\n"
    annotate(root, b"2.png\ta\n" + line.encode())
    with pytest.raises(
        SpecError, match=r"val_annotations.txt, line 2: expected the bare name of an image in images, named once"
    ) as caught:
        opened(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ["0.png", "0.png\t", "2.png\ta"])
def test_an_annotation_has_a_class_and_comes_once(root: Path, line: str) -> None:
    with pytest.raises(
        SpecError, match=r"line 2: expected the bare name of an image in images, named once, and its class, with a tab between"
    ):
        opened(annotate(root, b"2.png\ta\n" + line.encode()))


def test_annotations_of_another_encoding_are_refused(root: Path) -> None:
    with pytest.raises(SpecError, match=r"val_annotations.txt: expected readable UTF-8 text, got UnicodeDecodeError"):
        opened(annotate(root, b"0.png\tn\xe9\n"))
