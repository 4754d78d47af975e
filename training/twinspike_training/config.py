"""The config of a run: what to train, on what, with which backend; from TOML, JSON and `key=value` overrides.

A mistake in a file or an override is one line that names the key and, for a typo, the key that was
probably meant. Nothing here opens data or loads a backend.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from twinspike import plain
from twinspike.config import SGD, Config, Cosine, Method, Optimizer, Schedule, decode, encode, withdrawn
from twinspike.errors import SpecError, refuse, require
from twinspike.network import Network, from_json
from twinspike.precision import PrecisionName
from twinspike.zoo import ZOO
from twinspike.zoo import network as zoo_network
from twinspike_training import recipes
from twinspike_training.data import DataConfig
from twinspike_training.files import FILE, expand, found

CONFIGS = Path(__file__).parent / "configs"
"""Folder of the configs that come with the package."""


class Training(Config, frozen=True, kw_only=True):
    """How long to train, and what to write down on the way."""

    epochs: int = 30
    """Passes over the training samples, >= 1."""
    max_steps: int = 0
    """Optimizer steps after which the run ends, tested and saved, for trials; 0: only `epochs` ends it. The learning
    rate's course stays that of `epochs`."""
    batch_size: int = 128
    """B, samples per optimizer step, >= 2 (batch statistics of one sample are undefined, clause BN-8)."""
    drop_last: bool = True
    """Whether the samples that don't fill a last batch are left out of the epoch; else that batch is smaller."""
    evaluate_every: int = 1
    """In epochs, >= 1: test both twins and write a checkpoint; the last epoch always is."""
    checkpoint_every_steps: int = 0
    """In optimizer steps over the run; 0: only with evaluations."""
    checkpoint_every_seconds: float = 0.0
    """In seconds since the last one; 0: only with evaluations."""
    certify_every: int = 0
    """In optimizer steps over the run: each such step is judged against the clauses as it is taken, which ends the run where it
    breaks one; 0: none. Needs the conformance suite and the memory of a trace on the host."""
    certify_sample: int = 4
    """Samples, and channels where samples are not independent, that a judged step's large layers are judged by; 0: all."""
    log_every: int = 20
    """In optimizer steps, >= 1: how often the host waits for the device to read and write metrics."""
    tensorboard: bool = False
    """Whether metrics are also written as TensorBoard events, which needs the extra `tensorboard`."""

    def _check(self) -> None:
        for name, low in (
            ("epochs", 1),
            ("max_steps", 0),
            ("batch_size", 2),
            ("evaluate_every", 1),
            ("checkpoint_every_steps", 0),
            ("certify_every", 0),
            ("certify_sample", 0),
            ("log_every", 1),
        ):
            value = getattr(self, name)
            require(value >= low, f"training.{name}", expected=f"a whole number >= {low}", got=value)
        seconds = self.checkpoint_every_seconds
        require(
            math.isfinite(seconds) and seconds >= 0, "training.checkpoint_every_seconds", expected="seconds >= 0", got=seconds
        )

    def ended(self, epochs: int, steps: int) -> bool:
        """Whether a run that has completed so many epochs and taken so many steps has none left."""
        return epochs >= self.epochs or 0 < self.max_steps <= steps


class RunConfig(Config, frozen=True, kw_only=True):
    """Everything that decides a run."""

    backend: str = "torch"
    """A registered backend or `module:object`; when a run is gone on with or looked at, its folder may name the former alone."""
    device: str = "cpu"
    devices: int = 1
    """Devices that train together, those of all processes; 1 under a launcher (torchrun, srun, mpirun) is one of each process."""
    precision: PrecisionName = "f32-ieee"
    compile: bool | None = None
    """Whether the backend compiles the training step; if not given, as the backend prefers: jax does, torch and numpy don't."""
    recompute: bool = False
    """Whether the backward pass runs blocks again instead of keeping their inner values: less memory, more time,
    the same results."""
    graphs: bool = False
    """Whether a training step is recorded as one CUDA graph after a few that are run: the same kernels, started at once;
    torch alone has it, on one CUDA device."""
    seed: int = 0
    """Of initial values, order and augmentation, in [0, 2^63)."""
    network: str = "digits_cnn"
    """A name of the zoo, or the path of a network description that ends in `.json`."""
    width: int = 0
    """Channels of a zoo network's first stage, >= 1; 0: the network's usual width."""
    method: Method = Method()
    optimizer: Optimizer = SGD()
    learning_rate: float = 0.1
    """Peak of the schedule, > 0."""
    schedule: Schedule = Cosine()
    training: Training = Training()
    data: DataConfig = DataConfig()
    out: str = "runs"
    """Folder that holds the folders of runs."""
    name: str = ""
    """Folder of this run in `out`; empty: the network's name and the next free number."""
    recipe: str = ""
    """The recipe or the embedded config that this one was made from, by which a report names it; empty: a file of your own."""

    def _check(self) -> None:
        require(0 <= self.seed < 2**63, "seed", expected="a whole number in [0, 2^63)", got=self.seed)
        require(self.devices >= 1, "devices", expected="a whole number >= 1", got=self.devices)
        require(self.width >= 0, "width", expected="a whole number >= 1, or 0 for the usual one", got=self.width)
        rate = self.learning_rate
        require(math.isfinite(rate) and rate > 0, "learning_rate", expected="a finite number > 0", got=rate)
        require(self.network != "" and self.backend != "", "network and backend", expected="names", got="an empty string")
        free = self.name not in (".", "..") and not set(self.name) & {"/", "\0"}
        require(free, "name", expected="the name of a folder, without / and the null character", got=self.name)
        for key, path in (("out", self.out), ("network", self.network), ("data.path", self.data.path)):
            require("\0" not in path, key, expected="a path without null characters", got=path)


def load_config(source: str | None = None, overrides: Sequence[Change] = ()) -> RunConfig:
    """Read a run's config.

    Args:
        source: path of a `.toml` or `.json` file, or the name of an embedded config or of a recipe; None is `digits`.
        overrides: `key.sub=value` with a TOML value (a bare word is a string), applied in order. A new
            `kind` starts its table afresh.

    Raises:
        SpecError: no such config, not readable, an unknown key, or a value of the wrong type or range.
    """
    source = source or "digits"
    if source not in embedded() and recipes.is_recipe(source):
        recipe = recipes.parse(source)
        data = plain.read_table(find_config(recipe.base))
        for changes in recipe.changes:
            recipes.lay_over(data, changes)
    else:
        data = plain.read_table(find_config(source))
    if source in embedded() or recipes.is_recipe(source):
        data["recipe"] = source
    for change in overrides:
        override(data, change)
    return build(data, source)


def build(data: dict[str, Any], what: str) -> RunConfig:
    """A checked config from plain nested data.

    Args:
        data: tables as dicts.
        what: where they come from.

    Raises:
        SpecError: `what: key: reason`, the key as a config or `--set` writes it.
    """
    try:
        return decode(RunConfig, _complete(RunConfig, data, _ROOT, RunConfig()), _ROOT)
    except SpecError as error:
        told = _plain(str(error))
        quotes = "; a string stands in quotes" if "Expected `str`" in told else ""
        raise SpecError(f"{what}: {told}{quotes}") from None


_ROOT = "@"
"""Stands for the whole config in the paths of errors."""


def _plain(line: str) -> str:
    """Join the table that an error was found in with the key that it names, said once."""
    where, _, rest = line.partition(": ")
    inner, _, reason = rest.partition(": ")
    where = where.removeprefix(_ROOT).removeprefix(".")
    if re.fullmatch(r"[\w.]+", inner) and reason:
        table = where.rpartition(".")[2]
        key = inner.removeprefix(f"{table}.") if table else inner
        return f"{where}.{key}: {reason}".removeprefix(".")
    return f"{where}: {rest}" if where else rest


def embedded() -> tuple[str, ...]:
    """Names of the configs that come with the package."""
    return tuple(sorted(path.stem for path in CONFIGS.glob("*.toml")))


def find_config(source: str) -> Path:
    """The file that an embedded config's name or a path means; a file called like an embedded config is `./NAME`."""
    # First: a file of that name, in a folder from elsewhere, is not what `twinspike train` alone means.
    if source in embedded():
        return CONFIGS / f"{source}.toml"
    path = expand(source)
    if found(path) == FILE:
        return path
    known = [*embedded(), *recipes.book().data]
    expected = f"a file, one of {', '.join(embedded())}, or a recipe (twinspike recipe lists them)"
    raise refuse("config", expected=expected, got=source, do=_nearest(source, known))


Change = str | tuple[str, Any]
"""One change of a config: `key.sub=value` as a person writes it, or a key and its value."""


def override(data: dict[str, Any], change: Change) -> None:
    """Apply one change to nested data, in place."""
    text = change if isinstance(change, str) else "=".join(map(str, change))
    key, equals, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    require(equals == "=" and all(parts), "--set", expected="key=value or key.sub=value", got=text)
    table = data
    for depth, part in enumerate(parts[:-1], start=1):
        table = table.setdefault(part, {})
        require(isinstance(table, dict), "--set", expected=f"a table at {'.'.join(parts[:depth])}", got=text)
    if parts[-1] == "kind":
        table.clear()
    table[parts[-1]] = _scalar(value.strip(), text) if isinstance(change, str) else change[1]


def _scalar(value: str, text: str) -> Any:
    try:
        return plain.from_toml(f"value = {value}", "--set")["value"]
    except SpecError:
        # A shell strips the quotes that TOML wants around strings.
        key = text.partition("=")[0] if len(text) < 60 else "KEY"
        do = f"a string is quoted for TOML within quotes for the shell: --set '{key}=\"...\"'"
        require(re.fullmatch(r"[\w./:~+<-]*", value) is not None, "--set", expected="a TOML value after '='", got=text, do=do)
        digits = sys.get_int_max_str_digits()
        require(not value.isdecimal() or len(value) <= digits, "--set", expected=f"at most {digits} digits", got=text)
        return value


def _nearest(word: str, known: Sequence[str]) -> str | None:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else None


def _complete(kind: Any, value: Any, path: str, default: Any) -> Any:
    """Check keys and choices against a type, and fill in the default's `kind` where a table leaves it out."""
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if value not in choices:
            names = [str(choice) for choice in choices]
            raise refuse(path, expected=f"one of {', '.join(names)}", got=value, do=_nearest(str(value), names))
        return value
    structs = [k for k in (kind, *get_args(kind)) if isinstance(k, type) and issubclass(k, msgspec.Struct)]
    if not structs or not isinstance(value, dict):
        return value
    struct: Any = structs[0]
    field = struct.__struct_config__.tag_field
    if field is not None:
        tags: dict[str, Any] = {str(k.__struct_config__.tag): k for k in structs}
        fallback = getattr(type(default), "__struct_config__", None)
        tag = value.get(field, fallback.tag if fallback is not None else None)
        if not isinstance(tag, str) or tag not in tags:
            do = _nearest(str(tag), list(tags))
            raise refuse(f"{path}.{field}", expected=f"one of {', '.join(tags)}", got="nothing" if tag is None else tag, do=do)
        struct, value = tags[tag], {field: tag, **value}
    fields = {f.encode_name: f for f in msgspec.structs.fields(struct)}
    completed = {}
    for key, inner in value.items():
        if key == field:
            completed[key] = inner
            continue
        if key not in fields:
            do = _nearest(key, list(fields)) or f"known keys: {', '.join(fields)}"
            raise SpecError(f"{path}.{key}: {withdrawn(f'{path}.{key}') or f'unknown key; {do}'}")
        preset = fields[key].default
        completed[key] = _complete(fields[key].type, inner, f"{path}.{key}", preset)
    return completed


def to_json(config: RunConfig) -> str:
    """The whole config as indented JSON, which `load_config` reads back to an equal one."""
    return json.dumps(encode(config), indent=2) + "\n"


def build_network(config: RunConfig, input_shape: tuple[int, int, int], classes: int, event: bool) -> Network:
    """The network that a config names, for data of this shape.

    Args:
        config: names it.
        input_shape: (C, H, W) of one image or frame.
        classes: K.
        event: whether samples are sequences of frames.

    Raises:
        SpecError: the name is unknown, the description unreadable, or it does not fit the data.
    """
    if config.network in ZOO:
        return zoo_network(config.network, classes=classes, input_shape=input_shape, width=config.width or None, event=event)
    network = read_network(config.network)
    require(config.width == 0, "width", expected="0 with a network description, which has its own widths", got=config.width)
    got = (network.input_shape, network.classes, network.event)
    wanted = f"input shape {input_shape}, {classes} classes, event = {event} as the data have"
    require(got == (input_shape, classes, event), config.network, expected=wanted, got=str(got))
    return network


def read_network(source: str) -> Network:
    """Read a network description from a `.json` file; SpecError if it is none."""
    if not source.lower().endswith(".json"):
        raise refuse("network", expected=f"one of {', '.join(ZOO)}, or a .json file", got=source, do=_nearest(source, ZOO))
    path = expand(source)
    what = found(path)
    require(what == FILE, "network", expected="a readable .json file", got=f"{what}: {source}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise refuse("network", expected="a readable .json file", got=f"{error.strerror}: {source}") from None
    return from_json(content)
