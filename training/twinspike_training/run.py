"""The folder of a run and what a run is made of: data, network, backend, program.

A folder holds `config.json`, `metrics.jsonl`, `last.safetensors` and `best.safetensors`; each is written
so that a run killed at any moment can be resumed from it.
"""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from twinspike import learning_rate
from twinspike import load as load_backend
from twinspike import names as backend_names
from twinspike.backend import Capabilities, Program, Session
from twinspike.config import encode
from twinspike.errors import SpecError, refuse, require
from twinspike.judge import load_judge
from twinspike.network import Network
from twinspike.precision import PRECISIONS
from twinspike.replicas import share
from twinspike_training import checkpoint
from twinspike_training.board import tensorboard_modules
from twinspike_training.config import Change, RunConfig, build, build_network, load_config, override, to_json
from twinspike_training.data import Dataset, open_dataset
from twinspike_training.files import FILE, expand, found, is_part, write_atomic
from twinspike_training.lock import LOCK, alone
from twinspike_training.memory import require_memory, training_parts
from twinspike_training.ranks import Group, Place, place, rendezvous

MAY_CHANGE = (
    "backend",
    "device",
    "devices",
    "precision",
    "compile",
    "recompute",
    "graphs",
    "training",
    "data.path",
    "data.workers",
)
"""Keys, or tables, that a resumed run may be given anew: they decide where and how long it computes, not what.

That data from another place are the same data is checked by their fingerprint.
"""

MUST_STAY = ("training.batch_size", "training.drop_last")
"""Keys of these tables that decide what it computes."""


class RunFolder(msgspec.Struct, frozen=True):
    """Where one run keeps its files."""

    path: Path

    @property
    def config(self) -> Path:
        """The run's config, JSON."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per line (see `metrics`)."""
        return self.path / "metrics.jsonl"

    def checkpoint(self, which: str) -> Path:
        """File of the checkpoint `last` or `best`."""
        require(which in ("last", "best"), "checkpoint", expected="last or best", got=which)
        return self.path / f"{which}.safetensors"

    def write_config(self, config: RunConfig) -> None:
        """Write or replace the config; SpecError where that can't be done."""
        text = to_json(config)
        try:
            write_atomic(self.config, lambda path: path.write_text(text, encoding="utf-8"))
        except OSError as error:
            got = f"{error.strerror}: {self.config}"
            raise refuse("run", expected="a folder that can be written", got=got) from None

    def replace_last(self, path: Path) -> None:
        """Put a copy of another checkpoint in the place of the last."""
        try:
            write_atomic(self.checkpoint("last"), lambda part: shutil.copyfile(path, part))
        except OSError as error:
            raise refuse("checkpoint", expected="room and permission to write it", got=str(error)) from None


def create(config: RunConfig) -> RunFolder:
    """Make the folder of a new run.

    Raises:
        SpecError: the name is taken, or the folder can't be made.
    """
    base = Path(config.network).stem
    number = 1
    try:
        while True:
            path = Path(expand(config.out), config.name or f"{base}-{number:03d}")
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:
                if config.name:
                    require(path.is_dir(), "run", expected="a name not used before", got=str(path))
                    break
                number += 1
    except OSError as error:
        raise refuse("out", expected="a folder that can be written", got=f"{error.strerror}: {path}") from None
    folder = RunFolder(path)
    with alone(path):
        # A run killed before its first whole file leaves a folder that is free.
        free = not any(file for file in path.iterdir() if not is_part(file) and file.name != LOCK)
        require(free, "run", expected="a name not used before", got=str(path), do=f"--resume {path} goes on with it")
        folder.write_config(config)
    return folder


def open_run(path: str | Path) -> RunFolder:
    """The folder of a run that exists; SpecError if it is none."""
    folder = RunFolder(expand(path))
    do = "name the folder that training printed, such as runs/digits_cnn-001"
    what = found(folder.config)
    require(what == FILE, "run", expected="a run's folder with config.json", got=f"{path} ({what})", do=do)
    return folder


def stored_config(folder: RunFolder) -> RunConfig:
    """The config that a run was started, or last resumed, with: to be looked at, not to be loaded from (see `read_config`)."""
    return load_config(str(folder.config))


def read_config(folder: RunFolder, changes: Sequence[Change] = ()) -> RunConfig:
    """The config to go on with or to look at a run with: the folder's, with the user's changes.

    A folder may come from elsewhere, so it chooses no code: a backend that it alone names must be a registered one.

    Args:
        folder: of the run.
        changes: `key.sub=value`, as for `load_config`.

    Raises:
        SpecError: the folder names a backend as `module:object` and no change names one, or a change is not possible.
    """
    stored = stored_config(folder)
    data = encode(stored)
    del data["backend"]
    for change in changes:
        override(data, change)
    if "backend" not in data:
        require(
            stored.backend in backend_names(),
            f"backend in {folder.config}",
            expected=f"a registered one ({', '.join(backend_names())}), since a folder may come from elsewhere",
            got=repr(stored.backend),
            do="name one yourself with --backend, which also takes module:object",
        )
        data["backend"] = stored.backend
    return build(data, "config")


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """A config made real."""

    config: RunConfig
    dataset: Dataset
    network: Network
    session: Session
    program: Program
    capabilities: Capabilities
    group: Group = Group()
    """The processes of the run."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in each epoch."""
        training = self.config.training
        return self.dataset.steps_per_epoch(training.batch_size, drop_last=training.drop_last)


def prepare(config: RunConfig, network: Network | None = None, *, together: bool = False) -> Ready:
    """Load the backend, open the data and build the program.

    Args:
        config: of the run.
        network: from a checkpoint; None builds the one that the config names.
        together: with the other processes that a launcher started, and over all devices that the config asks for.

    Raises:
        SpecError: the backend, device, precision, data, network, memory, TensorBoard or judge is not to be had.
    """
    backend = load_backend(config.backend)
    where = place(backend, config.device, config.devices, rendezvous(os.environ)) if together else Place(backend, 1, None)
    capabilities = backend.capabilities()
    require(capabilities.networks, f"backend {config.backend!r}", expected="one that trains networks", got="operations alone")
    dataset = open_dataset(config.data, time_steps=config.method.time_steps)
    if network is None:
        network = build_network(config, dataset.input_shape, len(dataset.classes), dataset.event)
    # Refuses a batch that the data can't fill.
    dataset.steps_per_epoch(config.training.batch_size, drop_last=config.training.drop_last)
    _fits_in_memory(config, network)
    if config.training.tensorboard:
        tensorboard_modules()
    if config.training.certify_every:
        load_judge()
    compiled = capabilities.prefers_compiled if config.compile is None else config.compile
    session, group = where.session(config.device, config.precision, compiled)
    _shares(config, dataset, group)
    asked = {"recompute": config.recompute, **_graphs(config, session)}
    program = session.program(network, config.method, config.optimizer, **asked)
    return Ready(
        config=config, dataset=dataset, network=network, session=session, program=program, capabilities=capabilities, group=group
    )


def _graphs(config: RunConfig, session: Any) -> dict[str, bool]:
    """As an argument of the session's `program`, which has it in torch alone: none where it is not asked for."""
    if not config.graphs:
        return {}
    offered = "graphs" in inspect.signature(session.program).parameters
    require(offered, "graphs", expected="false with a backend that records no steps", got="true", do="leave it out")
    return {"graphs": True}


def _shares(config: RunConfig, dataset: Dataset, group: Group) -> None:
    """Refuse what devices can't share (clause DEV-1), or what is judged on one device alone."""
    many, training = group.replicas, config.training
    if many == 1:
        return
    share(training.batch_size, many, 0, "training.batch_size")
    if not training.drop_last:
        share(dataset.train_size % training.batch_size, many, 0, "the last batch of an epoch, with training.drop_last = false")
    own = training.certify_every > 0 and config.method.batch_norm.replicas == "local"
    expected = f"0 over {many} devices whose norms are local"
    require(not own, "training.certify_every", expected=expected, got=training.certify_every)


_NUMBER = {"float64": 8, "float32": 4, "bfloat16": 2}
"""Bytes of what layers hand on, by `Precision.activations`."""


def _fits_in_memory(config: RunConfig, network: Network) -> None:
    number, batch_size = _NUMBER[PRECISIONS[config.precision].activations], config.training.batch_size
    parts = training_parts(network, config.method, batch_size, number, on_host=config.device == "cpu")
    require_memory("training", parts, "lower method.time_steps, training.batch_size, data.size or width")


def reconcile(stored: RunConfig, wanted: RunConfig) -> RunConfig:
    """The config to resume with: `wanted`, if it changes nothing that decides what is computed.

    Raises:
        SpecError: naming the first key that may not change.
    """
    for key, before, after in _differences(stored, wanted):
        raise SpecError(f"{key}: a resumed run keeps {before!r}, got {after!r}; start a new run to change it")
    return wanted


def same_config(header: checkpoint.Header, config: RunConfig, what: str, also: Sequence[str] = ()) -> None:
    """Refuse to look at a checkpoint by another config than it was trained with, but for what `MAY_CHANGE` and `also` allow."""
    for key, before, after in _differences(header.config, config):
        if key in also:
            continue
        raise refuse(what, expected=f"the config that it was trained with, {key} = {before!r}", got=repr(after))


def _differences(stored: RunConfig, wanted: RunConfig) -> Iterator[tuple[str, Any, Any]]:
    """Keys that may not change and do, with both values; a key that one config has not is None there."""
    before, after = flat(encode(stored)), flat(encode(wanted))
    for key in sorted(before.keys() | after.keys()):
        free = (key in MAY_CHANGE or key.partition(".")[0] in MAY_CHANGE) and key not in MUST_STAY
        if not free and before.get(key) != after.get(key):
            yield key, before.get(key), after.get(key)


def flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """Nested plain data as one table with dotted keys."""
    if not isinstance(data, dict):
        return {prefix: data}
    return {k: v for key, inner in data.items() for k, v in flat(inner, f"{prefix}.{key}" if prefix else key).items()}


def rate_jump(header: checkpoint.Header, config: RunConfig, length: int) -> str | None:
    """What to say where another number of epochs makes the learning rate jump, since a schedule reaches over the whole run."""
    before, after = header.config.training.epochs, config.training.epochs
    if header.steps == 0 or before == after or header.epoch >= after:
        return None

    def rate(steps: int, epochs: int) -> float:
        return learning_rate(config.schedule, config.learning_rate, *divmod(steps, length), epochs, length)

    last, otherwise, goes_on = rate(header.steps - 1, before), rate(header.steps - 1, after), rate(header.steps, after)
    if last == otherwise:
        return None
    return (
        f"the learning rate jumps from {last:.3g} to {goes_on:.3g}: a schedule reaches over the whole run, "
        f"which has {after} epochs now and had {before}"
    )


def same_epochs(header: checkpoint.Header, steps_per_epoch: int, what: str) -> None:
    """Refuse to go on from a position that is none of epochs of that many steps."""
    expected = f"{steps_per_epoch} steps an epoch, as the data and training.batch_size have"
    fits = header.step <= steps_per_epoch and header.steps == header.epoch * steps_per_epoch + header.step
    require(fits, what, expected=expected, got=f"step {header.step} of epoch {header.epoch + 1}, {header.steps} in all")


def same_data(header: checkpoint.Header, dataset: Dataset, what: str) -> None:
    """Refuse to go on with data other than those that a checkpoint was trained on."""
    same = dataset.fingerprint == header.fingerprint
    require(same, what, expected=f"the data it was trained on ({header.fingerprint})", got=dataset.fingerprint)


def opened(path: str | Path, which: str, changes: Sequence[Change] = ()) -> tuple[Ready, checkpoint.Checkpoint]:
    """A checkpoint to be looked at and what computes with it, with the run's backend or another, and with another T if wanted.

    Args:
        path: folder of the run.
        which: best or last.
        changes: as for `read_config`.

    Raises:
        SpecError: the config or the data are others than the checkpoint was trained with.
    """
    folder = open_run(path)
    config, file = read_config(folder, changes), folder.checkpoint(which)
    found = checkpoint.load(file)
    same_config(found.header, stored_config(folder), str(file))
    same_config(found.header, config, str(file), also=("method.time_steps",))
    ready = prepare(config, found.header.network)
    same_data(found.header, ready.dataset, str(file))
    return ready, found
