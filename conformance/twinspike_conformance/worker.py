"""A process that runs checks for another one: the options come first, then one id of a check per line, and records go back.

What a backend prints goes to standard error.
"""

from __future__ import annotations

import os
import signal
import sys

import msgspec

from twinspike_conformance import session
from twinspike_conformance.checks import CHECKS
from twinspike_conformance.diagnosis import suspects
from twinspike_conformance.jobs import packed, spare_the_collector
from twinspike_conformance.profiles import profile
from twinspike_conformance.runner import run_check


def main() -> None:
    """Answer until nothing more is asked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks ends this process too
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    options = msgspec.json.decode(sys.stdin.buffer.readline(), type=session.Options)
    bench, chosen = session.bench(options), profile(options.profile)
    spare_the_collector()
    for line in sys.stdin.buffer:
        record = run_check(CHECKS[line.decode().strip()], bench, chosen, options.seed, suspects)
        answers.write(packed(record))
        answers.flush()


if __name__ == "__main__":
    main()
