"""Recipes run in legs: each call takes up every run where the last call left it, until all are finished or its time is over."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from twinspike.errors import require
from twinspike_training import checkpoint
from twinspike_training.config import Change, RunConfig, load_config
from twinspike_training.files import MISSING, expand, found
from twinspike_training.loop import Outcome, resume, start
from twinspike_training.progress import Progress
from twinspike_training.run import RunFolder, open_run, reconcile, stored_config


class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended."""

    folders: tuple[Path, ...]
    """Of all runs, finished or not, in the order in which they are taken."""
    left: tuple[Path, ...]
    """Those that are not finished."""
    signalled: bool
    """Whether a signal ended it, and not its time."""


def run_leg(
    recipes: Sequence[str],
    seeds: int,
    changes: Sequence[Change],
    seconds: float,
    progress: Callable[[], Progress],
) -> Leg:
    """Train what is left of some recipes, a run for each seed.

    All recipes have their run of one seed before the next seed's begin, so that what is compared has equal numbers of runs.

    Args:
        recipes: names, or files of configs.
        seeds: how many runs of each; their seeds are 0, 1, ... after the recipe's own.
        changes: `key.sub=value`, the same for all; `seed` and `name` are not among them.
        seconds: after which to stop, with a checkpoint; inf: never.
        progress: makes what follows one run.

    Raises:
        SpecError: no such recipe; a run in the way that has another config; or whatever ends a run.
    """
    require(seeds >= 1, "--seeds", expected="a whole number >= 1", got=seeds)
    require(seconds > 0, "--minutes", expected="a number > 0", got=seconds / 60)
    until = time.monotonic() + seconds
    wanted = list(_runs(recipes, seeds, changes))
    folders = [Path(expand(config.out), config.name) for config in wanted]
    require(len(set(folders)) == len(folders), "recipe", expected="different recipes", got=", ".join(recipes))
    left = list(folders)
    for config, folder in zip(wanted, folders, strict=True):
        if finished(config, folder):
            left.remove(folder)
    for config, folder in zip(wanted, folders, strict=True):
        if folder not in left:
            continue
        if time.monotonic() >= until:
            break
        outcome = _go_on(config, folder, progress(), until)
        if outcome.finished:
            left.remove(folder)
        elif time.monotonic() < until:
            return Leg(folders=tuple(folders), left=tuple(left), signalled=True)
    return Leg(folders=tuple(folders), left=tuple(left), signalled=False)


def _runs(recipes: Sequence[str], seeds: int, changes: Sequence[Change]) -> Iterator[RunConfig]:
    keys = {change.partition("=")[0].strip() if isinstance(change, str) else change[0] for change in changes}
    for key in ("seed", "name"):
        require(key not in keys, "--set", expected=f"no {key}, which a recipe's runs count", got=key)
    for number in range(seeds):
        for recipe in recipes:
            config = load_config(recipe, changes)
            seed = config.seed + number
            name = f"{config.recipe or Path(recipe).stem}-seed{seed}"
            yield msgspec.structs.replace(config, seed=seed, name=name)


def finished(config: RunConfig, folder: Path) -> bool:
    """Whether a run has nothing left to do.

    Raises:
        SpecError: it is there with another config.
    """
    if found(folder / "config.json") == MISSING:
        return False
    run = open_run(folder)
    reconcile(stored_config(run), config)
    if found(run.checkpoint("last")) == MISSING:
        return False
    header, training = checkpoint.load_header(run.checkpoint("last")), config.training
    ended = training.ended(header.epoch, header.steps)
    return ended and not header.due


def _go_on(config: RunConfig, folder: Path, progress: Progress, until: float) -> Outcome:
    try:
        if found(folder / "config.json") == MISSING:
            return start(config, progress, until)
        return resume(RunFolder(folder), config, progress, until=until)
    finally:
        progress.end()


NEVER = math.inf
"""Seconds of a leg that ends with its runs."""
