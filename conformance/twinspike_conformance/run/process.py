"""A process that runs checks, as whoever asks it sees it.

Checks run in processes of their own, even where there is one: a backend may end its process, hang, or write to standard
output, and none of these may cost what other checks found. A process that has ended is started anew for the next check.
"""

from __future__ import annotations

import base64
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import final

import msgspec

from twinspike.errors import SpecError
from twinspike_conformance.cases import Example
from twinspike_conformance.cases.base import from_digest
from twinspike_conformance.checks import Check
from twinspike_conformance.report.record import Failure, Record, Side
from twinspike_conformance.report.summary import duration
from twinspike_conformance.run.child import started
from twinspike_conformance.run.opening import Options
from twinspike_conformance.run.runner import broken, not_twice

PATIENCE = 60.0
"""Seconds after which a running check is named, and again whenever they have doubled."""

ALONE = 60.0
"""Seconds that are spared to ask an example again in a process of its own."""

_LAST = 5.0
"""Seconds for a process that has closed its end of the pipe to end by itself."""

_POLL = 1.0
"""Seconds between looks at whether a process still lives: one that it started may hold its end of the pipe open."""


class Asked(msgspec.Struct, frozen=True):
    """One check, or one example of it alone."""

    check: str
    example: Example | None = None


class Opened(msgspec.Struct, frozen=True, tag=True):
    """The backend is there."""

    side: Side


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The backend is not there; a line says why."""

    line: str


class Trying(msgspec.Struct, frozen=True, tag=True):
    """The example that is run next, and the failure that is known by now."""

    example: Example
    failure: Failure | None


class Done(msgspec.Struct, frozen=True, tag=True):
    """A check has ended."""

    record: Record


class Replayed(msgspec.Struct, frozen=True, tag=True):
    """What was wrong with one example."""

    sentences: tuple[str, ...]


Message = Opened | Refused | Trying | Done | Replayed


def packed(message: Message) -> bytes:
    """One line: msgpack in base64, since JSON knows no infinity."""
    return base64.b64encode(msgspec.msgpack.encode(message)) + b"\n"


def unpacked(line: bytes) -> Message:
    """What `packed` made a line of."""
    message: Message = msgspec.msgpack.decode(base64.b64decode(line), type=Message)
    return message


class _EndedError(Exception):
    """The process has ended, or was ended at its limit; the text says how."""


@final
class Process:
    """Runs one check at a time; to be used by one thread, but for `stop`."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self._options, self._say = options, say
        self._popen: subprocess.Popen[bytes] | None = None
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._side: Side | None = None
        self._lock, self._stopped = Lock(), False

    def start(self) -> None:
        """Begin to open the backend, unless that was done before."""
        with self._lock:
            if self._popen is not None or self._stopped:
                return
            self._side, self._lines = None, SimpleQueue()
            self._popen = started("twinspike_conformance.run.worker")
            Thread(target=_listen, args=(self._popen, self._lines), daemon=True).start()
        self._tell(msgspec.json.encode(self._options))

    def opened(self) -> Side:
        """What the process opened.

        Raises:
            SpecError: the backend can't be loaded or has no such session, or the process ended or hung meanwhile.
        """
        self.start()
        if self._side is None:
            name = f"backend {self._options.backend!r}"
            try:
                message = self._next(time.monotonic() + self._options.limit)
            except _EndedError as error:
                raise SpecError(f"{name} can't be opened: its process {error}") from None
            if isinstance(message, Refused):
                self.end()
                raise SpecError(message.line)
            assert isinstance(message, Opened)
            self._side = message.side
        return self._side

    def run(self, check: Check) -> Record:
        """The check's record: of status `error` if the process ended or came to its limit, unless a failure was known by then."""
        began, trying = time.monotonic(), None
        if self._popen is not None and self._popen.poll() is not None:
            self.end()  # it came to its end between two checks, and neither is to blame
        try:
            self.opened()
            began = time.monotonic()
            notice = began + PATIENCE
            self._tell(msgspec.json.encode(Asked(check.id)))
            while True:
                message = self._next(began + self._options.limit, notice)
                now = time.monotonic()
                if now >= notice:
                    self._say(f"{check.id} has been running for {duration(now - began)}, of at most {self._options.limit:g} s")
                    notice = began + 2 * (notice - began)
                if isinstance(message, Done) and message.record.id == check.id:
                    return message.record
                trying = message if isinstance(message, Trying) else trying
        except SpecError as error:
            return broken(check, str(error), time.monotonic() - began)
        except _EndedError as error:
            return _cut(check, f"the process that ran it {error}", trying, time.monotonic() - began)

    def replay(self, check: str, example: Example) -> tuple[str, ...] | None:
        """What is wrong with one example; None if that can't be had."""
        try:
            self.opened()
            self._tell(msgspec.json.encode(Asked(check, example)))
            message = self._next(time.monotonic() + min(ALONE, self._options.limit))
        except (SpecError, _EndedError):
            return None
        return message.sentences if isinstance(message, Replayed) else None

    def stop(self) -> None:
        """End the process, whatever it does, and start no other."""
        with self._lock:
            self._stopped = True
        self.end()

    def end(self) -> int | None:
        """End the process, and with it what the backend holds; the next check starts another. Returns its status."""
        with self._lock:
            popen, self._popen = self._popen, None
        if popen is None:
            return None
        ended = popen.poll()
        popen.kill()
        status = popen.wait()
        assert popen.stdin is not None
        with suppress(OSError):  # what it was not told any more
            popen.stdin.close()
        return status if ended is None else ended

    def _tell(self, line: bytes) -> None:
        popen = self._popen
        if popen is None:
            return
        assert popen.stdin is not None
        with suppress(OSError, ValueError):  # it has ended, which the next look for an answer tells
            popen.stdin.write(line + b"\n")
            popen.stdin.flush()

    def _next(self, limit: float, notice: float = float("inf")) -> Message | None:
        """The next message; None at the time of notice; _EndedError where none will come, or none has at the limit."""
        while True:
            now, popen = time.monotonic(), self._popen
            if popen is None:
                raise _EndedError("was ended")
            if now >= limit:
                self.end()
                raise _EndedError(f"was ended at the limit of {self._options.limit:g} s; --limit says another")
            if now >= notice:
                return None
            alive = popen.poll() is None  # if not, what it said before is still to be heard
            try:
                line = self._lines.get(timeout=min(_POLL, limit - now, max(0.0, notice - now)) if alive else _LAST)
            except Empty:
                if alive:
                    continue
                line = None
            if line is not None:
                with suppress(ValueError, msgspec.MsgspecError):  # cut short: it ended while it wrote
                    return unpacked(line)
            with suppress(subprocess.TimeoutExpired):
                popen.wait(_LAST)
            raise _EndedError(_ending(self.end()))


def _listen(popen: subprocess.Popen[bytes], lines: SimpleQueue[bytes | None]) -> None:
    """Hand on what comes, and None at the end."""
    assert popen.stdout is not None
    with popen.stdout:
        for line in popen.stdout:
            lines.put(line)
    lines.put(None)


def _ending(status: int | None) -> str:
    if status is None:
        return "was ended"
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def _cut(check: Check, reason: str, trying: Trying | None, seconds: float) -> Record:
    """The record of a check whose process came to its end, with the example that it was about."""
    if trying is None:
        return broken(check, reason, seconds)
    known = trying.failure
    if known is not None:
        sentences = (*known.sentences, f"no smaller example: {reason}")
        record = broken(check, "", seconds, msgspec.structs.replace(known, sentences=sentences))
        return msgspec.structs.replace(record, status="fail")
    example = trying.example
    failure = Failure(digest=f"{check.id}:{example.digest()}", sentences=(), reproduction="", example=example.words())
    return broken(check, reason, seconds, failure)


def alone(record: Record, options: Options, say: Callable[[str], None]) -> Record:
    """The record, which says so if its failing example is right, or wrong in another way, in a process of its own."""
    failure = record.failure
    if failure is None or not failure.steady or record.status != "fail":
        return record
    process = Process(options, say)
    try:
        sentences = process.replay(record.id, from_digest(failure.digest.rpartition(":")[2]))
    finally:
        process.stop()
    note = "" if sentences is None else not_twice(failure.sentences[: len(sentences) or None], sentences)
    if not note:
        return record
    note = note.replace("asked again", "asked alone in a fresh process")
    failure = msgspec.structs.replace(failure, sentences=(note, *failure.sentences), steady=False)
    return msgspec.structs.replace(record, failure=failure)
