"""Which files of a folder are samples, and why the others are not: nothing is left out without a word.

The rule is that of torchvision's ImageFolder (its documentation, `DatasetFolder.make_dataset`): classes are the
subfolders, sorted by name; samples are the files at any depth below them, links followed, sorted within a class by the
path of their folder, then by name; a class without a sample is an error. Two things differ: only the suffixes of PNG
and JPEG are samples here (ImageFolder also takes .ppm, .bmp, .pgm, .tif, .tiff and .webp), and a link whose target is
gone is left out (ImageFolder fails when it comes to it).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from twinspike.errors import SpecError, refuse, require

SUFFIXES = (".png", ".jpg", ".jpeg")
"""Of samples, in either case."""

ANNOTATIONS = "val_annotations.txt"

Samples = list[tuple[Path, str]]
"""Image files with the names of their classes, in order."""

Left = Counter[str]
"""Why files are left out -> how many."""


def told(samples: int, left: Left, what: str = f"{', '.join(SUFFIXES)} below class folders") -> tuple[str, ...]:
    """What to say of the files left out: a line, or none.

    Args:
        samples: how many files are.
        left: the others.
        what: samples are.
    """
    many = left.total()
    if many == 0:
        return ()
    kinds = ", ".join(f"{why} {count:,}" for why, count in sorted(left.items(), key=lambda item: (-item[1], item[0])) if count)
    return (f"{many:,} of {many + samples:,} files left out: {kinds}; samples are {what}",)


def by_class(folder: Path, left: Left) -> Samples:
    """The images below the class folders of a folder.

    Args:
        folder: its subfolders are classes.
        left: gets what is left out.

    Raises:
        SpecError: there is no class, or one without an image.
    """
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                names.append(entry.name)
            else:
                left["beside the class folders"] += 1
    require(bool(names), str(folder), expected="one subfolder of images per class", got="no subfolder")
    samples: Samples = []
    for name in sorted(names):
        part = folder / name
        files = [Path(file) for file in _below(str(part), left) if is_sample(file, left)]
        require(bool(files), str(part), expected=f"images ({', '.join(SUFFIXES)})", got="none")
        samples += [(file, name) for file in files]
    return samples


def _below(folder: str, left: Left) -> Iterator[str]:
    """The files below a folder in ImageFolder's order."""
    above: dict[str, tuple[str, ...]] = {folder: (os.path.realpath(folder),)}
    found = []
    for where, folders, names in os.walk(folder, followlinks=True, onerror=lambda _: left.update(["folders that can't be read"])):
        chain = above.pop(where)
        for name in tuple(folders):
            inner = os.path.join(where, name)
            real = os.path.realpath(inner)
            if real in chain:
                left["links in a circle"] += 1
                folders.remove(name)
            else:
                above[inner] = (*chain, real)
        found.append((where, sorted(names)))
    for where, names in sorted(found):
        for name in names:
            yield os.path.join(where, name)


def is_sample(file: str, left: Left, suffixes: tuple[str, ...] = SUFFIXES) -> bool:
    """Whether a file is one by its suffix, in either case, and by what it is; else it is counted.

    Args:
        file: path.
        left: gets it, if it is none.
        suffixes: of samples, in lower case.
    """
    suffix = os.path.splitext(file)[1].lower()
    if suffix not in suffixes:
        left[ascii(suffix)[1:-1] or "without a suffix"] += 1
    elif not os.path.isfile(file):
        left["dead links" if os.path.islink(file) else "no regular files"] += 1
    else:
        return True
    return False


def annotated(file: Path, left: Left) -> Samples:
    """The images that lines of `file name <tab> class <tab> ...` name in the folder `images` beside them, by file name.

    Args:
        file: UTF-8, with or without a byte-order mark; empty lines mean nothing.
        left: gets the files without a line.

    Raises:
        SpecError: the file can't be read as text, or a line names no file of that folder, none by its bare name, or one again.
    """
    folder = file.parent / "images"
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise refuse(str(file), expected="readable UTF-8 text", got=f"{type(error).__name__}: {error}") from None
    waiting: set[str] = set()
    if folder.is_dir():
        with os.scandir(folder) as entries:
            waiting = {entry.name for entry in entries if entry.is_file()}
    samples: Samples = []
    for number, line in enumerate(lines, start=1):
        name, _, rest = line.partition("\t")
        if not line.strip():
            continue
        # Looked up among the names that are there, so that no line can name a file outside the data set.
        if name not in waiting or not rest:
            raise SpecError(
                f"{file}, line {number}: expected the bare name of an image in {folder.name}, named once, and its class, with a "
                f"tab between, got {line!r}; if {file.parent.name} is sorted into class folders, remove {file.name}"
            )
        waiting.remove(name)
        samples.append((folder / name, rest.partition("\t")[0]))
    require(bool(samples), str(file), expected="a line per image", got="an empty file")
    left[f"without a line in {file.name}"] += len(waiting)
    return sorted(samples)
