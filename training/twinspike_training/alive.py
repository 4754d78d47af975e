"""Whether the other processes of a run live: each says so in datagrams, whatever backend trains.

A process that ends is missed at once, since its connections close, and the backend says so. One that stands still, on a machine
that hangs, keeps them, and the others would wait in the middle of a step: that it says nothing is the only sign. A process
that is merely slow goes on to say that it lives. One that was never heard of is not missed: a network may carry no datagrams.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np

from twinspike.replicas import Rendezvous
from twinspike_training.ranks import Group

PERIOD = 2.0
"""Seconds between two signs."""
SILENCE = 20.0
"""Seconds without a sign after which a process counts as lost."""

_LEAVES = "leaves"
_REPEATED = 3
"""Times that a process says so, since a datagram may be lost."""

_PLACE = 96
"""Bytes in which a process tells where it listens, and a word that only those of its run know."""


@contextmanager
def watched(group: Group, kept: Callable[[], str]) -> Iterator[None]:
    """Within it, a process that stands still ends the others with one line and status 2.

    Args:
        group: the processes, and where they met.
        kept: what the run can go on from; where that is being written it waits until it is whole.
    """
    if group.world_size == 1 or group.at is None:
        yield
        return
    watch = Watch(group, group.at)
    over = threading.Event()

    def end() -> None:
        while not over.is_set():
            if (said := watch.turn()) is None:
                continue
            way = kept()
            if not over.is_set():
                with suppress(OSError, ValueError):
                    print(f"error: {said}; {way}", file=sys.stderr, flush=True)
                os._exit(2)  # the main thread waits inside the framework, where nothing reaches it

    thread = threading.Thread(target=end, name="twinspike-alive", daemon=True)
    thread.start()
    try:
        yield
        watch.leave()
    finally:
        over.set()
        watch.wake()
        thread.join()
        watch.close()


class Watch:
    """One process's signs to the others, and theirs."""

    def __init__(self, group: Group, at: Rendezvous) -> None:
        """Tell the others where this process listens, and hear where they do; all must do it at once."""
        host, _, port = at.address.rpartition(":")
        family, _, _, _, place = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(place)  # sends nothing: it finds the address that others reach this machine at
            own = probe.getsockname()[0]
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.bind((own, 0))
        told = np.zeros(_PLACE, np.uint8)
        words = f"{own} {self._socket.getsockname()[1]} {os.urandom(8).hex()}".encode()
        told[: len(words)] = np.frombuffer(words, np.uint8)
        places = [bytes(row.tobytes()).rstrip(b"\0").decode().split() for row in group.ask(told)]
        self._rank, self._size = group.rank, group.world_size
        self._word = "".join(word for _, _, word in places)[:32]
        self._places = {rank: (where, int(to)) for rank, (where, to, _) in enumerate(places) if rank != group.rank}
        self._heard: dict[int, float] = {}
        self._next = self._before = time.monotonic()

    def turn(self) -> str | None:
        """Give a sign where one is due, hear one or wait for a while; which process is lost, None where none is."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + PERIOD
            self._say(f"{self._word} {self._rank}")
        self._hear(max(0.01, self._next - now))
        now = time.monotonic()
        if now - self._before > SILENCE / 2:  # it was this process that stood still, and maybe all: their time begins anew
            self._heard = dict.fromkeys(self._heard, now)
        self._before = now
        lost = next((rank for rank, since in self._heard.items() if now - since > SILENCE), None)
        if lost is None:
            return None
        return (
            f"process {self._rank} of {self._size}: expected a sign of life of every other one, got none of process {lost} for "
            f"{SILENCE:.0f} s; its machine hangs or can't be reached"
        )

    def leave(self) -> None:
        """Say that this process ends as it should: others may still have a checkpoint to write, and must not miss it."""
        for _ in range(_REPEATED):
            self._say(f"{self._word} {self._rank} {_LEAVES}")

    def wake(self) -> None:
        """End another thread's wait within `turn`."""
        with suppress(OSError):
            self._socket.sendto(b"", self._socket.getsockname())

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def _say(self, text: str) -> None:
        for place in list(self._places.values()):
            with suppress(OSError):
                self._socket.sendto(text.encode(), place)

    def _hear(self, seconds: float) -> None:
        self._socket.settimeout(seconds)
        try:
            word, _, said = self._socket.recv(256).decode("ascii", "replace").partition(" ")
        except OSError:  # nothing came, or a process that has ended refused what was sent
            return
        rank, _, leaves = said.partition(" ")
        if word != self._word or not rank.isdecimal() or int(rank) not in self._places:
            return
        if leaves == _LEAVES:
            del self._places[int(rank)]
            self._heard.pop(int(rank), None)
        else:
            self._heard[int(rank)] = time.monotonic()
