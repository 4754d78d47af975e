"""Recordings in AEDAT, the format of jAER and of its successors: version 2 of a DVS128 sensor, and version 3.1.

Both begin with lines that begin with `#`, the first of which names the version. What follows is, after iniVation's pages on
file formats,

    2.0    big-endian pairs of an address and a time in microseconds, 32 bits each; in a DVS128's address bit 15 marks what is
           no event of a pixel, bits 14 to 8 are y and 7 to 1 x, counted from the lower left, and bit 0 is the polarity
    3.1    little-endian packets behind the line `#!END-HEADER`: a head of 28 bytes (kind and source, 16 bits each, then size
           of an event, place of its time, overflow of the clock, capacity, number and number of valid events, 32 bits each),
           then events; kind 1 is of pixels: 32 bits of which bit 0 says whether it is valid, bit 1 its polarity, bits 2 to
           16 y and 17 to 31 x, counted from the upper left, and a time of 32 bits, to which each overflow adds 2^31
"""

from __future__ import annotations

from mmap import mmap

import numpy as np
from numpy.typing import NDArray

from twinspike.errors import refuse, require
from twinspike_training.data.events import Recording

DVS128 = 128
"""Height and width of the sensor of CIFAR10-DVS and of DVS128 Gesture, in pixels."""

_LONGEST = 1 << 20
"""Bytes that a header may have; more is another kind of file."""

_EXTERNAL = 1 << 15
_END, _HEAD, _PIXELS = b"#!END-HEADER\r\n", 28, 1


def _after_lines(data: bytes, version: bytes, what: str) -> int:
    """Where the lines that begin with # end."""
    first = data[:64].split(b"\n")[0].rstrip(b"\r")
    require(first == version, what, expected=f"a file that begins with {version.decode()}", got=ascii(first.decode("latin-1")))
    place = 0
    while data[place : place + 1] == b"#":
        end = data.find(b"\n", place, _LONGEST)
        require(end >= 0, what, expected="a header whose lines end", got="one that does not", do="copy the file again")
        place = end + 1
    return place


def decode_aedat2(data: bytes, what: str) -> Recording:
    """Read a recording of a DVS128 in AEDAT 2.0.

    Times that run backwards, which that sensor's recordings have where its clock was set anew, are refused by who bins them.

    Args:
        data: the file's bytes.
        what: the file, as errors name it.

    Raises:
        SpecError: it has another version, or an event is cut off.
    """
    start = _after_lines(data, b"#!AER-DAT2.0", what)
    if (len(data) - start) % 8:
        raise refuse(
            what, expected="whole events of 8 bytes", got=f"{len(data) - start} bytes", do="it is truncated: copy it again"
        )
    address, time = np.frombuffer(data, dtype=">i4", offset=start).reshape(-1, 2).astype(np.int64).T
    pixels = (address & _EXTERNAL) == 0
    address, time = address[pixels], time[pixels]
    return Recording(time, (address >> 1) & 0x7F, DVS128 - 1 - ((address >> 8) & 0x7F), address & 1)


def decode_aedat3(data: bytes | mmap, what: str, begin: int = 0, end: int = 1 << 62) -> Recording:
    """Read the pixels' events of an AEDAT 3.1 file, or those of a part of its time.

    Args:
        data: the file's bytes, or a map of them.
        what: the file, as errors name it.
        begin: in microseconds, of the first event that is wanted.
        end: likewise, of the first that is wanted no more.

    Raises:
        SpecError: it has another version, or a packet is cut off or says of itself what can't be.
    """
    head = bytes(data[:_LONGEST])
    _after_lines(head, b"#!AER-DAT3.1", what)
    place = head.find(_END)
    require(place >= 0, what, expected="the line #!END-HEADER", got="none")
    place += len(_END)
    parts: list[NDArray[np.int64]] = []
    while place < len(data):
        cut = f"a packet cut off at byte {place}"
        require(place + _HEAD <= len(data), what, expected="whole packets", got=cut, do="it is truncated: copy it again")
        kind, _ = np.frombuffer(data[place : place + 4], "<i2").tolist()
        size, _, overflow, capacity, number, _ = np.frombuffer(data[place + 4 : place + _HEAD], "<i4").tolist()
        place += _HEAD
        sensible = size > 0 and 0 <= number <= capacity and (kind != _PIXELS or size == 8) and overflow >= 0
        require(sensible, what, expected="packets of events", got=f"{number} of {size} bytes, kind {kind}, before byte {place}")
        require(place + size * number <= len(data), what, expected="whole packets", got=cut, do="it is truncated: copy it again")
        if kind == _PIXELS and number:
            words, times = np.frombuffer(data[place : place + 8 * number], "<u4").reshape(-1, 2).astype(np.int64).T
            times = (times & 0x7FFFFFFF) + (overflow << 31)
            wanted = ((words & 1) == 1) & (times >= begin) & (times < end)
            if wanted.any():
                words, times = words[wanted], times[wanted]
                parts.append(np.stack([times, words >> 17, (words >> 2) & 0x7FFF, (words >> 1) & 1]))
        place += size * number
    return Recording(*(np.concatenate(parts, axis=1) if parts else np.zeros((4, 0), np.int64)))
