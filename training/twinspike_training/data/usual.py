"""By what a data set's samples are normalized, told by a config alone: nothing is opened."""

from __future__ import annotations

from twinspike_training.data import cifar, digits, folder
from twinspike_training.data.config import DataConfig

_OWN = {
    "digits": (digits.MEAN, digits.STD),
    "folder": (folder.MEAN, folder.STD),
    **{name: (layout.mean, layout.std) for name, layout in cifar.LAYOUTS.items()},
}


def normalization(config: DataConfig) -> dict[str, tuple[float, ...]] | None:
    """`mean` and `std` per channel: (value - mean)/std is a sample, white being 1. None for counts of events, as they are."""
    if config.name not in _OWN:
        return None
    mean, std = _OWN[config.name]
    return {"mean": config.mean or mean, "std": config.std or std}
