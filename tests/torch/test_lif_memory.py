"""What the CPU's kernel works with: memory that is used again, and pieces of work in threads."""

from __future__ import annotations

import threading

import pytest
import torch

from twinspike_torch import lif_memory, lif_threads

SIZE = 1 << 16
"""Of float32: more than malloc keeps to itself."""


@pytest.fixture(autouse=True)
def empty_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lif_memory, "_store", lif_memory._Store())


def fresh(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return lif_memory.empty((4, SIZE // 4), (SIZE // 4, 1), dtype)


@pytest.mark.parametrize("holder", ["view", "detached", "array", "storage"])
def test_memory_is_used_again_after_its_last_holder_and_not_before(holder: str) -> None:
    first = fresh()
    address = first.data_ptr()
    held = {"view": first[1:2], "detached": first.detach(), "array": first.numpy(), "storage": first.untyped_storage()}[holder]
    del first
    other = fresh()
    assert other.data_ptr() != address
    del held
    assert fresh().data_ptr() == address


def test_what_autograd_saves_is_held() -> None:
    x = fresh().fill_(2.0).requires_grad_()
    y, address = x.square().sum(), x.data_ptr()
    del x
    assert fresh().data_ptr() != address
    y.backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_an_output_is_an_ordinary_tensor(dtype: torch.dtype) -> None:
    out = lif_memory.empty((2, 3, SIZE, 2), (6 * SIZE, 1, 6, 3), dtype)
    assert (out.dtype, out.shape, out.stride()) == (dtype, (2, 3, SIZE, 2), (6 * SIZE, 1, 6, 3))
    assert not out._is_view()
    assert out.data_ptr() % lif_memory.ALIGNED == 0
    assert torch.equal(out.fill_(1.0), torch.ones(2, 3, SIZE, 2, dtype=dtype))


def test_no_more_is_kept_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lif_memory, "KEPT", 2 * SIZE * 4)
    held = [fresh() for _ in range(3)]
    for _ in range(3):
        held.pop()
    assert lif_memory._store._bytes == SIZE * 4  # the third did not fit, so the first two went
    del held
    large = lif_memory.empty((3 * SIZE,), (1,), torch.float32)
    del large
    assert lif_memory._store._bytes == SIZE * 4


class Pieces:
    """Work as `lif_threads.run` takes it: pieces that a thread takes itself, until none is left."""

    def __init__(self, count: int) -> None:
        self.left, self.taken, self.done = iter(range(count)), list[int](), 0
        self._lock = threading.Lock()

    def __call__(self, number: int) -> int:
        while True:
            with self._lock:
                if (piece := next(self.left, None)) is None:
                    return self.done
                self.taken.append(piece)
            self.work(number)
            with self._lock:
                self.done += 1

    def work(self, number: int) -> None:
        """Of one piece, in a thread."""


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_work_ends_with_its_last_piece(threads: int) -> None:
    pieces = Pieces(37)
    lif_threads.run(pieces, 37, threads)
    assert (sorted(pieces.taken), pieces.done) == (list(range(37)), 37)


def test_a_piece_of_another_thread_is_waited_for() -> None:
    """The caller finds no piece left while the other thread is still at its own."""
    here, there = threading.Event(), threading.Event()

    class One(Pieces):
        def __call__(self, number: int) -> int:
            if number == 0 and not there.is_set():
                assert here.wait(60)
                there.set()
                return self.done
            return super().__call__(number)

        def work(self, number: int) -> None:
            assert number == 1
            here.set()
            assert there.wait(60)

    pieces = One(1)
    lif_threads.run(pieces, 1, 2)
    assert pieces.done == 1


def test_two_callers_at_once_share_the_helpers() -> None:
    both = (Pieces(500), Pieces(500))
    callers = [threading.Thread(target=lif_threads.run, args=(own, 500, 3)) for own in both]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [(sorted(own.taken), own.done) for own in both] == [(list(range(500)), 500)] * 2
