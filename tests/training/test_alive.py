"""Signs of life of the processes of a run: two of them, played by two threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from twinspike.replicas import Rendezvous
from twinspike_training import alive
from twinspike_training.ranks import Group


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[alive.Watch]]:
    """Two processes that have told one another where they listen."""
    monkeypatch.setattr(alive, "PERIOD", 0.05)
    monkeypatch.setattr(alive, "SILENCE", 2.0)
    told: dict[int, Any] = {}
    both = threading.Barrier(2)
    found: dict[int, alive.Watch] = {}

    def process(rank: int) -> None:
        def ask(values: Any) -> Any:
            told[rank] = values
            both.wait()
            return np.stack([told[0], told[1]])

        at = Rendezvous(address="127.0.0.1:1", rank=rank, world_size=2)
        found[rank] = alive.Watch(Group(rank=rank, world_size=2, replicas=2, at=at, ask=ask), at)

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yield [found[0], found[1]]
    for watch in found.values():
        watch.close()


def test_a_slow_process_lives_and_one_that_says_nothing_is_lost(two: list[alive.Watch]) -> None:
    began = time.monotonic()
    while time.monotonic() - began < 3.0:
        assert [watch.turn() for watch in two] == [None, None]
    while (said := two[0].turn()) is None:
        assert time.monotonic() - began < 60
    assert said.startswith("process 0 of 2: expected a sign of life of every other one, got none of process 1 for 2 s")


def test_one_that_was_never_heard_of_is_not_missed(two: list[alive.Watch]) -> None:
    began = time.monotonic()
    while time.monotonic() - began < 2.5:
        assert two[0].turn() is None


def test_a_process_that_stood_still_itself_misses_nobody_for_it(two: list[alive.Watch]) -> None:
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        assert [watch.turn() for watch in two] == [None, None]
    time.sleep(2.5)
    assert two[0].turn() is None


def test_words_of_others_are_no_sign(two: list[alive.Watch]) -> None:
    two[0]._word = "another"
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        assert [watch.turn() for watch in two] == [None, None]
    assert two[1]._heard == {}
