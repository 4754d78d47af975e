"""Signs of life of the processes of a run: two of them, played by two threads."""

from __future__ import annotations

import select
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


def test_processes_that_are_paused_together_go_on(two: list[alive.Watch], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alive, "SILENCE", 1.0)
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        assert [watch.turn() for watch in two] == [None, None]
    hear = two[0]._hear

    def paused(seconds: float) -> None:
        while two[0]._socket in select.select([two[0]._socket], [], [], 0)[0]:
            hear(0.01)
        time.sleep(1.5)  # it nearly always waits for a sign when it is stopped

    monkeypatch.setattr(two[0], "_hear", paused)
    assert two[0].turn() is None
    monkeypatch.setattr(two[0], "_hear", hear)
    began = time.monotonic()
    while (said := two[0].turn()) is None:  # one that does not come back is missed all the same
        assert time.monotonic() - began < 60
    assert "none of process 1" in said


def test_one_that_leaves_as_it_should_is_not_missed(two: list[alive.Watch], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alive, "SILENCE", 1.0)
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        assert [watch.turn() for watch in two] == [None, None]
    two[1].leave()
    began = time.monotonic()
    while time.monotonic() - began < 2.0:
        assert two[0].turn() is None
    assert two[0]._heard == {}


def test_a_lost_process_ends_another_after_its_checkpoint_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost:
        def __init__(self, *_: object) -> None:
            self.leave = self.wake = self.close = lambda: None

        def turn(self) -> str | None:
            time.sleep(0.01)
            return "process 1 is lost" if writing.locked() else None

    writing, ends, whole = threading.Lock(), threading.Event(), list[bool]()

    def kept() -> str:
        with writing:
            whole.append(True)
            return "last keeps step 3"

    def end(status: int) -> None:
        assert (status, bool(whole)) == (2, True)
        ends.set()

    monkeypatch.setattr(alive, "Watch", Lost)
    monkeypatch.setattr("os._exit", end)
    group = Group(rank=0, world_size=2, replicas=2, at=Rendezvous(address="127.0.0.1:1", rank=0, world_size=2))
    with alive.watched(group, kept):
        with writing:
            assert not ends.wait(0.3)
        assert ends.wait(10)


def test_words_of_others_are_no_sign(two: list[alive.Watch]) -> None:
    two[0]._word = "another"
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        assert [watch.turn() for watch in two] == [None, None]
    assert two[1]._heard == {}
