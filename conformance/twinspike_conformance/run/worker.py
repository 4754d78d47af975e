"""The process within a `process.Process`: the options come first, then what is asked, one line each, and messages go back.

What a backend prints goes to standard error, and what it reads from standard input is empty.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from threading import Thread
from typing import BinaryIO

import msgspec

from twinspike.errors import SpecError
from twinspike_conformance.cases import Example
from twinspike_conformance.checks import CHECKS
from twinspike_conformance.interrupts import SIGNALS
from twinspike_conformance.raised import said
from twinspike_conformance.report.record import Failure
from twinspike_conformance.run import opening as session
from twinspike_conformance.run.diagnosis import suspects
from twinspike_conformance.run.jobs import spare_the_collector
from twinspike_conformance.run.process import Asked, Done, Message, Opened, Refused, Replayed, Trying, packed
from twinspike_conformance.run.profiles import profile
from twinspike_conformance.run.runner import broken, run_check, told, try_example

_LOOK = 1.0
"""Seconds between looks at whether the process that asks is still there."""


def main() -> None:
    """Answer until nothing more is asked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks ends this process too
    for number in SIGNALS[1:]:
        signal.signal(number, lambda *_: None)  # likewise; unlike what is ignored, what a backend starts does not inherit it
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    asked, answers = _ends()
    faulthandler.enable()

    def answer(message: Message) -> None:
        answers.write(packed(message))
        answers.flush()

    options = msgspec.json.decode(asked.readline(), type=session.Options)
    try:
        bench = session.bench(options)
        answer(Opened(session.side(bench)))
    except SpecError as error:
        answer(Refused(str(error)))
        return
    except BaseException as error:  # whatever a backend raises as it is loaded
        answer(Refused(f"backend {options.backend!r} can't be opened: {said(error)}"))
        return
    spare_the_collector()

    def trail(example: Example, failure: Failure | None) -> None:
        answer(Trying(example, failure))

    for line in asked:
        one = msgspec.json.decode(line, type=Asked)
        check = CHECKS[one.check]
        if one.example is not None:
            answer(Replayed(told(try_example(check, bench, one.example))))
            continue
        try:
            answer(Done(run_check(check, bench, profile(options.profile), options.seed, suspects, trail)))
        except Exception as error:  # a record that can't be sent
            answer(Done(broken(check, f"the suite itself failed: {said(error)}")))


def _end_with(parent: int) -> None:
    """End this process once whoever asks is gone, however they ended: a check that hangs reads no end of its input."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)


def _ends() -> tuple[BinaryIO, BinaryIO]:
    """This process's ends of the pipes, taken from where a backend would read or write."""
    asked, answers = os.fdopen(os.dup(sys.stdin.fileno()), "rb"), os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return asked, answers


if __name__ == "__main__":
    main()
