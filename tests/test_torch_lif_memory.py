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


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_piece_is_done_once(threads: int) -> None:
    done: list[int] = []
    lif_threads.run(done.append, 37, threads)
    assert sorted(done) == list(range(37))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_piece_that_fails_is_heard_of(threads: int) -> None:
    def piece(number: int) -> None:
        if number == 5:
            raise ValueError("five")

    with pytest.raises(ValueError, match="five"):
        lif_threads.run(piece, 9, threads)
    lif_threads.run(lambda number: None, 9, threads)


def test_two_callers_at_once_share_the_helpers() -> None:
    done: list[list[int]] = [[], []]
    callers = [threading.Thread(target=lif_threads.run, args=(own.append, 500, 3)) for own in done]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [sorted(own) for own in done] == [list(range(500))] * 2
