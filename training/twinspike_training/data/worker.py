"""Worker processes that make batches, so that augmentation takes no turn of the interpreter that drives an accelerator.

A process is this module run by the same Python, and speaks over its two pipes: a config first, then one task
in, one batch out. Nothing is forked, and a user's main module is not imported again. A process ends when its
input ends, so it can't outlive the run, whatever becomes of that. Each holds its own opened data set.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import traceback
import weakref
from contextlib import suppress
from typing import IO, Any, final

import numpy as np
from numpy.typing import NDArray

from twinspike.config import decode, encode
from twinspike.errors import SpecError
from twinspike_training.data.batch import Batch, Task, open_maker
from twinspike_training.data.config import DataConfig

_PATIENCE = 5.0
"""Seconds that a process has to end by itself before it is killed."""


@final
class Pool:
    """Callable that hands each task to an idle process; for as many threads as there are processes."""

    def __init__(self, config: DataConfig, time_steps: int) -> None:
        """Start `config.workers` processes; they open the data set while the caller goes on.

        Args:
            config: of the data set.
            time_steps: T.

        Raises:
            SpecError: no process can be started.
        """
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self.processes: list[subprocess.Popen[bytes]] = []
        self._finish = weakref.finalize(self, _end, self.processes)
        for _ in range(config.workers):
            process = _start()
            self.processes.append(process)
            with suppress(BrokenPipeError):  # if it died, its first task says so
                _send(process, (encode(config), time_steps))
            self._idle.put(process)

    def __call__(self, task: Task) -> Batch:
        """The task's batch, made by an idle process; waits for one.

        Raises:
            SpecError: as the maker of batches, or the process died.
        """
        process = self._idle.get()
        try:
            return _ask(process, task)
        finally:
            self._idle.put(process)

    def close(self) -> None:
        """End the processes."""
        self._finish()


def _start() -> subprocess.Popen[bytes]:
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", f"from {__name__} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
            start_new_session=True,  # an interrupt typed at the terminal is for the run, which then ends its workers
        )
    except OSError as error:
        raise SpecError(f"data worker: can't be started ({error}); set data.worker to 'thread'") from error


def _ask(process: subprocess.Popen[bytes], task: Task) -> Batch:
    assert process.stdout is not None
    try:
        _send(process, tuple(task))
        answer = pickle.load(process.stdout)
        if isinstance(answer, BaseException):
            raise answer
        shape, size = answer
        return _receive(process.stdout, shape, np.float32), _receive(process.stdout, (size,), np.int64)
    except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
        code = _wait(process)
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        raise SpecError(
            f"data worker: ended by {how} before its batch was done; is memory short? use fewer data.workers"
        ) from error


def _send(process: subprocess.Popen[bytes], message: object) -> None:
    assert process.stdin is not None
    pickle.dump(message, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
    process.stdin.flush()


def _wait(process: subprocess.Popen[bytes]) -> int:
    """The exit status of a process that is about to end, or is made to."""
    try:
        return process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _receive(pipe: IO[bytes], shape: tuple[int, ...], kind: type[Any]) -> NDArray[Any]:
    array = np.empty(shape, dtype=kind)
    if pipe.readinto(array.data.cast("B")) != array.nbytes:  # type: ignore[attr-defined]  # the pipe is a BufferedReader
        raise EOFError
    return array


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already
            process.stdin.close()
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()
        _wait(process)


def _portable(error: Exception) -> Exception:
    """The error itself, or one of its text if it can't be sent; with its traceback unless one line says all."""
    if isinstance(error, SpecError):
        return error
    error.add_note("in a data worker:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("\n".join((repr(error), *error.__notes__)))
    return error


def main() -> None:
    """Serve tasks from standard input until it ends."""
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # Whatever a library prints goes to standard error, not among the batches.
    os.dup2(2, 1)
    failure: Exception | None = None
    try:
        data, time_steps = pickle.load(requests)
        maker = open_maker(decode(DataConfig, data), time_steps)
    except EOFError:
        return
    except Exception as error:  # the parent raises it where a batch was due
        failure = error
    while True:
        try:
            task = Task(*pickle.load(requests))
        except EOFError:
            return
        try:
            if failure is not None:
                raise failure
            images, labels = maker(task)
        except Exception as error:
            pickle.dump(_portable(error), replies)
        else:
            pickle.dump((images.shape, len(labels)), replies)
            replies.write(images.data.cast("B"))
            replies.write(labels.data.cast("B"))
        try:
            replies.flush()
        except BrokenPipeError:
            return
