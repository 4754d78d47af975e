"""Whatever comes from outside is an answer or one line: config files, `--set`, networks, checkpoints, records, names, data.

    python benchmarks/fuzz.py --examples 1000000 [--jobs 2] [--seed 0]

Each part makes inputs as hostile as its reader can get them, hands them to what the commands call, and holds what is raised
against `twinspike.boundary`, which must know it. Tests run some hundreds of each; a release is run with a million.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from fuzz_data import DataParts
from hostile import FRAGMENTS, TEXTS, Counts, altered, mutated
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import twinspike as ts
from twinspike.config import encode
from twinspike.cost import cost
from twinspike.network import from_json, to_json
from twinspike_training import checkpoint, compare, config, metrics, run

TINY = ["backend=numpy", "precision=f64", "width=2", "method.time_steps=2"]


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """Every key with its value, tables among them."""
    here = {prefix: data} if prefix else {}
    for name, value in data.items() if isinstance(data, dict) else ():
        here |= _flat(value, f"{prefix}.{name}" if prefix else name)
    return here


_DEFAULT = encode(config.load_config("digits", TINY))
_VALUES = {key: value for key, value in _flat(_DEFAULT).items() if not isinstance(value, dict | type(None))}
_NEAR = ["0", "1", "2", "0.5", "1e-3", "true", "all", "mean", "none", "penalty", "adam", "[]", '"x"']


def _use(wanted: config.RunConfig) -> None:
    """What a command does with a config before data and backend are opened."""
    config.to_json(wanted)
    network = config.build_network(wanted, (1, 8, 8), 10, False)
    ts.layout(network, wanted.method, wanted.optimizer)
    cost(network, wanted.method)


class Parts:
    """Parts by name: each takes Hypothesis' data and makes and judges one input."""

    def __init__(self, folder: Path, counts: Counts) -> None:
        self._folder, self._counts = folder, counts
        small = config.load_config("digits", TINY)
        self._network = config.build_network(small, (1, 8, 8), 10, False)
        state = ts.initial_state(self._network, small.method, small.optimizer, seed=0)
        self._header = checkpoint.Header(
            backend="numpy",
            epoch=0,
            step=0,
            steps=0,
            best=None,
            fingerprint="x",
            metrics_bytes=0,
            config=small,
            network=self._network,
        )
        self._state, self._file = state, folder / "a.safetensors"
        checkpoint.save(self._file, self._header, state)
        self._whole = self._file.read_bytes()
        self._run = folder / "run"
        self._run.mkdir()
        (self._run / "config.json").write_text(config.to_json(small))

    def config_bytes(self, data: st.DataObject) -> None:
        """A file of configuration: any bytes, or one of ours changed."""
        suffix = data.draw(st.sampled_from([".json", ".toml", ".JSON", ""]))
        path = self._folder / f"c{suffix}"
        toml = (config.CONFIGS / "cifar10_resnet18.toml").read_bytes()
        mine = toml if "json" not in suffix.lower() else json.dumps(_DEFAULT).encode()
        how = data.draw(st.integers(0, 3))
        if how == 0:
            path.write_bytes(data.draw(st.binary(max_size=200)))
        elif how == 1:
            path.write_bytes(mutated(data, mine))
        else:
            path = path.with_suffix(".json")
            path.write_text(json.dumps(altered(data, _DEFAULT)))
        self._counts.told(lambda: _use(config.load_config(str(path))))

    def set_texts(self, data: st.DataObject) -> None:
        """`--set`: keys that there are, and any, with values that fit or not."""
        keys = st.sampled_from(sorted(_VALUES))
        fitting = keys.map(lambda key: f"{key}={json.dumps(_VALUES[key])}")
        near = st.tuples(keys, st.sampled_from(_NEAR)).map("=".join)
        any_key = st.one_of(keys, TEXTS, st.sampled_from(["method", "data", ".".join("a" * 2000)]))
        hostile = st.tuples(any_key, st.sampled_from(["=", "=", "", "==", " = "]), FRAGMENTS).map("".join)
        texts = [data.draw(st.one_of(fitting, near, near, hostile)) for _ in range(data.draw(st.integers(1, 3)))]
        self._counts.told(lambda: _use(config.load_config("digits", texts)))

    def networks(self, data: st.DataObject) -> None:
        """A network's description."""
        text = to_json(self._network)
        content = (
            mutated(data, text.encode()) if data.draw(st.booleans()) else json.dumps(altered(data, json.loads(text))).encode()
        )

        def use() -> None:
            network = from_json(content)
            ts.layout(network, self._header.config.method, self._header.config.optimizer)
            cost(network, self._header.config.method)

        self._counts.told(use)

    def checkpoints(self, data: st.DataObject) -> None:
        """A checkpoint: any bytes, ours changed, or ours with another header under a digest that is right."""
        how = data.draw(st.integers(0, 3))
        if how == 0:
            content = data.draw(st.binary(max_size=100))
        elif how == 1:
            content = mutated(data, self._whole)
        else:
            end = 8 + int.from_bytes(self._whole[:8], "little")
            outer = json.loads(self._whole[8:end])
            if how == 2:
                inner = altered(data, json.loads(outer["__metadata__"][checkpoint.KEY]))
                outer["__metadata__"][checkpoint.KEY] = json.dumps(inner, separators=(",", ":"))
            else:
                outer = altered(data, outer)
            content = _sealed(json.dumps(outer, separators=(",", ":")).encode()) + self._whole[end:]
        self._file.write_bytes(content)
        self._counts.told(lambda: checkpoint.load_header(self._file))
        self._counts.told(lambda: checkpoint.load(self._file))

    def records(self, data: st.DataObject) -> None:
        """Lines of metrics, compared."""
        step = {"kind": "step", "step": 1, "epoch": 0, "learning_rate": 0.1, "samples": 8, "images_per_second": 1.0}
        step |= dict.fromkeys((*metrics.LOSS_PARTS, "accuracy_ann", "accuracy_snn", "spike_rate"), 1.0)
        epoch = step | {"kind": "epoch", "accuracy_exits_ann": [0.1], "accuracy_exits_snn": [0.1], "spike_rates": {"a": 0.1}}
        epoch |= {"deviation": {"a": 0.1}, "validation": {"accuracy_ann": 0.5, "accuracy_snn": 0.5}}
        lines = [step, step, epoch]
        how = data.draw(st.integers(0, 2))
        if how:
            lines = [altered(data, line) if data.draw(st.booleans()) else line for line in lines]
        content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        (self._run / "metrics.jsonl").write_bytes(content if how == 2 else mutated(data, content))
        self._counts.told(lambda: compare.compare(compare.read_runs([str(self._run)] * 2)))

    def names(self, data: st.DataObject) -> None:
        """Names of runs, folders and files."""
        name = data.draw(
            st.one_of(TEXTS, st.sampled_from(["x" * 300, "..", ".", "a/b", "\udce9", "-", "~", "~nobody", ".lock", "a\0b"]))
        )
        out = str(self._folder / "out")

        def use() -> None:
            wanted = config.load_config("digits", [*TINY, ("out", out), ("name", name)])
            folder = run.create(wanted)
            run.open_run(folder.path)
            assert run.stored_config(folder) == wanted

        self._counts.told(use)
        shutil.rmtree(out, ignore_errors=True)
        for look in (run.open_run, config.find_config, config.read_network):
            self._counts.told(lambda look=look: look(name))  # type: ignore[misc]


def _sealed(text: bytes) -> bytes:
    """What stands before the arrays of a checkpoint, with a digest that fits."""
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    start = head.find(rb"\"checksum\":\"") + len(rb"\"checksum\":\"")
    if start < 100 or start + 64 > len(head):
        return head
    old = head[start : start + 64].decode("latin-1")
    return head.replace(old.encode(), checkpoint._before_arrays(head, old).encode())


_ROOMS: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (Parts, ("config_bytes", "set_texts", "networks", "checkpoints", "records", "names")),
    (DataParts, ("images", "recordings", "packs", "listings")),
)
PARTS = tuple(part for _, names in _ROOMS for part in names)


def fuzz(part: str, examples: int, number: int = 0, *, fixed: bool = False) -> Counts:
    """Make inputs of one part; what the boundary does not know is raised.

    Args:
        part: of `PARTS`.
        examples: how many draws; some are more than one input.
        number: seed, where not `fixed`.
        fixed: whether Hypothesis draws the same every time.
    """
    counts = Counts()
    with tempfile.TemporaryDirectory() as folder:
        (make,) = (room for room, names in _ROOMS if part in names)
        parts = make(Path(folder), counts)

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=fixed,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def one(data: st.DataObject) -> None:
            getattr(parts, part)(data)

        (one if fixed else seed(number)(one))()
    return counts


def _job(job: tuple[str, int, int]) -> tuple[str, int, int]:
    counts = fuzz(*job)
    return job[0], counts.inputs, counts.refused


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1_000_000, help="in all, shared among the parts")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=PARTS, help="this one alone")
    given_ = parser.parse_args()
    parts = [given_.part] if given_.part else list(PARTS)
    each = 5000  # draws of one test: Hypothesis remembers what it drew
    rounds = max(1, round(given_.examples / len(parts) / each))
    size = min(each, max(1, given_.examples // len(parts)))
    jobs = [(part, size, given_.seed * 1_000_003 + number) for number in range(rounds) for part in parts]
    began, totals = time.monotonic(), {part: [0, 0] for part in parts}
    with multiprocessing.Pool(given_.jobs) as pool:
        for part, inputs, refused in pool.imap_unordered(_job, jobs):
            totals[part][0] += inputs
            totals[part][1] += refused
            print(
                f"{time.monotonic() - began:7.0f} s  " + "  ".join(f"{p} {i:,} ({r:,} refused)" for p, (i, r) in totals.items()),
                flush=True,
            )
    print(f"{sum(i for i, _ in totals.values()):,} inputs, each an answer or one line")


if __name__ == "__main__":
    main()
