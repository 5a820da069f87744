"""How torch's CPU threads wait for their next piece of work.

By default an OpenMP thread that is done spins for milliseconds, in case there is more to do at
once. Beside another busy process that takes the processor away from the thread that everybody waits
for, and a step takes several times as long. A thread that sleeps at once costs a wake-up for every
piece of work instead: a third of a small model's speed on idle cores. So threads spin for a few
microseconds, from one piece of work to the next, and then sleep. ``OMP_WAIT_POLICY`` and GNU's
``GOMP_SPINCOUNT`` choose, and are read once, when torch is loaded.
"""

from __future__ import annotations

import os
import sys
import time
from statistics import median

VARIABLE = "OMP_WAIT_POLICY"
CHOSEN = (VARIABLE, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables by which a user chooses (OpenMP's, GNU's, LLVM's): then nothing is changed here."""

SPINS = "1000"
"""Looks for more work before a thread sleeps (GNU's OpenMP, which torch brings). Measured in
benchmarks/README.md: fewer cost speed on idle cores, more beside a busy process."""

_BEFORE = {name: os.environ[name] for name in CHOSEN if name in os.environ}
_LATE = "torch" in sys.modules


def wait_passively() -> None:
    """Let threads that wait sleep, unless the user chose or torch is loaded already."""
    if not _BEFORE and not _LATE:
        os.environ[VARIABLE] = "PASSIVE"
        os.environ["GOMP_SPINCOUNT"] = SPINS


def waiting() -> str:
    """How threads were asked to wait, and by whom."""
    if _BEFORE:
        return ", ".join(f"{name}={value}" for name, value in _BEFORE.items())
    if _LATE:
        return f"{VARIABLE} not set: torch was loaded before dlmkit"
    return f"{VARIABLE}=PASSIVE, GOMP_SPINCOUNT={SPINS}, set by dlmkit"


SPINNING = 0.5
"""Milliseconds: threads that sleep spend 0.05 on falling asleep, threads that spin several."""


def in_force(threads: int, idle: float) -> str:
    """What ``threads`` that spend ``idle`` milliseconds on waiting do, and what to do about it."""
    if threads == 1:
        return "one thread waits for nobody"
    if idle < SPINNING:
        return "threads that wait sleep"
    return (
        f"threads that wait spin, which is slow beside other busy programs: import dlmkit before "
        f"torch, or set {VARIABLE}=PASSIVE before Python starts"
    )


def idle_milliseconds(rounds: int = 9) -> float:
    """CPU time that torch's threads spend on waiting in the 20 ms after some work: measured."""
    import torch

    work = torch.zeros(1 << 20)
    spent = []
    for _ in range(rounds):
        work.exp()
        start = time.process_time()
        time.sleep(0.02)
        spent.append(time.process_time() - start)
    return 1e3 * median(spent)
