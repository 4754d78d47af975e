"""The page for users of torch works as shown."""

from __future__ import annotations

from pages import run


def test_five_minutes_with_torch_are_as_shown() -> None:
    (accuracy,) = (line for line in run("torch.md") if line.endswith("of the training images"))
    assert int(accuracy.partition("%")[0]) >= 90  # a bright quarter of four is easily told
