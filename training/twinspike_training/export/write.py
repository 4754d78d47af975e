"""A run's spiking twin in a file of some format, whole or not at all; what the format can't say is refused in one line."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from safetensors.numpy import save as to_bytes

from twinspike.config import encode
from twinspike.errors import SpecError, refuse, require
from twinspike_training.export import jax_source, torch_source
from twinspike_training.export.twin import Array, SpikingTwin
from twinspike_training.files import write_atomic

Format = Literal["nir", "onnx", "safetensors", "torch", "jax"]
FORMATS: tuple[Format, ...] = get_args(Format)

_SUFFIX: dict[Format, str] = {"nir": ".nir", "onnx": ".onnx", "safetensors": ".safetensors", "torch": ".py", "jax": ".py"}


def export(twin: SpikingTwin, to: str, out: Path, *, folded: bool = False) -> list[Path]:
    """Write a spiking twin.

    Args:
        twin: of `spiking_twin`.
        to: one of `FORMATS`.
        out: the file; its folder must exist, and it must end as its format's files do.
        folded: onnx alone: norms become part of the convolutions before them.

    Returns:
        What was written: out, and with `torch` and `jax` the safetensors file of the same name beside it.

    Raises:
        SpecError: a package is missing, the file can't be written, or the format has no place for what the network does.
    """
    if to not in FORMATS:
        raise refuse("--format", expected=f"one of {', '.join(FORMATS)}", got=to)
    format_: Format = next(known for known in FORMATS if known == to)
    suffix = _SUFFIX[format_]
    require(out.suffix == suffix, "--out", expected=f"a file that ends in {suffix}", got=str(out))
    require(
        not folded or to == "onnx", "--fold", expected="--format onnx; nir folds always, the others never", got=f"--format {to}"
    )
    if format_ in ("torch", "jax"):
        require(out.stem.isidentifier(), "--out", expected="a name that Python can import, such as net.py", got=out.name)
    beside = out.with_suffix(".safetensors")
    write: dict[Path, Callable[[Path], object]]
    match format_:
        case "safetensors":
            told = twin.facts | {"network": encode(twin.network), "eps": twin.method.batch_norm.eps}
            write = {out: _bytes(_safetensors(twin.arrays, told))}
        case "torch" | "jax":
            text = (torch_source if format_ == "torch" else jax_source).source(twin, beside.name)
            write = {
                beside: _bytes(_safetensors(torch_source.arrays(twin), twin.facts)),
                out: lambda path: path.write_text(text, encoding="utf-8"),
            }
        case "onnx":
            model = _needs("onnx_file", "onnx").model(twin, folded=folded)
            write = {out: _bytes(model.SerializeToString())}
        case "nir":
            nir_file = _needs("nir_file", "nir")
            write = {out: _bytes(nir_file.content(nir_file.graph(twin)))}
    for path, content in write.items():
        try:
            write_atomic(path, content)
        except OSError as error:
            raise refuse("--out", expected="a file that can be written", got=f"{error.strerror}: {path}") from None
    return list(write)


def _needs(module: str, package: str) -> Any:
    """A module of this package that needs one of the extra `export`."""
    try:
        return importlib.import_module(f"twinspike_training.export.{module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("twinspike"):
            raise
        raise SpecError(f"package {error.name!r} is not installed; install it with: pip install 'twinspike[export]'") from None


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _safetensors(arrays: dict[str, Array], told: dict[str, Any]) -> bytes:
    # Row-major copies: safetensors stores the memory of an array as it lies.
    laid = {name: value.copy(order="C") for name, value in arrays.items()}
    return bytes(to_bytes(laid, metadata={"twinspike": json.dumps(told)}))
