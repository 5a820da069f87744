"""How torch's CPU threads wait for their next piece of work.

By default an OpenMP thread that is done spins for milliseconds, in case there is more to do at
once. Beside another busy process that takes the processor away from the thread that everybody waits
for, and a step takes several times as long. A thread that sleeps at once costs a wake-up for every
piece of work instead: a quarter of a small model's speed on idle cores. So threads spin while no
other program wants their cores, and sleep while one does.

``OMP_WAIT_POLICY`` and GNU's ``GOMP_SPINCOUNT`` are read once, when torch is loaded. But GNU's
OpenMP spins only as long as it has no more threads than there are cores: holding a few more, which
do nothing, sends all to sleep, and letting them go wakes them. How many threads compute, and so
what they compute to the last bit, stays the same.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

VARIABLE = "OMP_WAIT_POLICY"
CHOSEN = (VARIABLE, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables by which a user chooses (OpenMP's, GNU's, LLVM's): then nothing is changed here."""

SPINS, FEW_SPINS = "300000", "1000"
"""Looks for more work before a thread sleeps: what GNU's OpenMP does of itself (milliseconds), and
what costs little beside a busy process (microseconds), for systems that do not say who is busy."""

PERIOD = 0.25
"""Seconds between two looks at who uses the cores."""
WANTED, FREE = 0.25, 0.1
"""Cores that others use, beyond those that torch leaves them: from the first on threads sleep,
below the second they spin again. The system counts in ticks, 25 to a core's period."""

_STAT = Path("/proc/stat")
_PROCESS: Any = ctypes.pythonapi
"""What this process has loaded, torch's OpenMP too."""
_BEFORE = {name: os.environ[name] for name in CHOSEN if name in os.environ}
_LATE = "torch" in sys.modules
_following = threading.Lock()


def wait_passively() -> None:
    """Choose how threads wait, unless the user chose or torch is loaded already."""
    if not _BEFORE and not _LATE:
        os.environ[VARIABLE] = "PASSIVE"
        os.environ["GOMP_SPINCOUNT"] = SPINS if _STAT.exists() else FEW_SPINS


def follow_load() -> None:
    """From now on let threads that wait spin while their cores are free, and sleep otherwise.

    Once a process, by a thread of its own, where torch has several threads, GNU's OpenMP runs
    them, the system says who is busy, and the user has not chosen. They sleep until the first look.
    """
    import torch

    threads = torch.get_num_threads()
    if _BEFORE or threads == 1 or not _STAT.exists() or not hasattr(_PROCESS, "GOMP_parallel"):
        return
    if _following.acquire(blocking=False):
        threading.Thread(target=_follow, args=(threads,), daemon=True).start()


def _follow(threads: int) -> None:
    """Let threads sleep and spin by turns, for as long as the process lives."""
    spare = len(os.sched_getaffinity(0)) - threads
    while True:
        release = threading.Event()
        held = threading.Thread(target=_crowd, args=(release,), daemon=True)
        held.start()
        while not spare + FREE > used_by_others(PERIOD) > -WANTED:
            pass
        release.set()
        held.join()
        while spare + WANTED > used_by_others(PERIOD) > -WANTED:
            pass


def _crowd(release: threading.Event) -> None:
    """Hold more threads of GNU's OpenMP than there are cores, asleep, until ``release``."""
    import torch

    torch.get_num_threads()  # at a thread's first use torch sets the number itself
    cores: int = _PROCESS.omp_get_num_procs()
    _PROCESS.omp_set_num_threads(cores + 1)  # of this thread alone
    elements = (cores + 1) << 15  # torch gives a thread 2^15 at least
    torch.zeros(elements, device="cpu").exp_()
    release.wait()


def used_by_others(seconds: float) -> float:
    """Cores, of those that this process may use, that other programs use in the next ``seconds``.

    Far below 0 if the system does not tell what uses them.
    """
    began, busy, mine = time.monotonic(), _busy_seconds(), time.process_time()
    time.sleep(seconds)
    spent = _busy_seconds() - busy - (time.process_time() - mine)
    return spent / (time.monotonic() - began)


def _busy_seconds() -> float:
    """Time that this process's cores did not idle since the system started (proc(5))."""
    cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    ticks = 0
    for line in _STAT.read_text().splitlines():
        name, *fields = line.split()
        if name in cores:
            ticks += sum(map(int, fields[:3] + fields[5:8]))  # all but idle, iowait, guests' again
    return ticks / os.sysconf("SC_CLK_TCK")


def waiting() -> str:
    """How threads were asked to wait, and by whom."""
    if _BEFORE:
        return ", ".join(f"{name}={value}" for name, value in _BEFORE.items())
    if _LATE:
        return f"{VARIABLE} not set: torch was loaded before dlmkit"
    spins = os.environ["GOMP_SPINCOUNT"]
    return f"{VARIABLE}=PASSIVE, GOMP_SPINCOUNT={spins}, set by dlmkit"


SPINNING = 0.5
"""Milliseconds: threads that sleep spend 0.05 on falling asleep, threads that spin several."""


def in_force(threads: int, idle: float, others: float) -> str:
    """What ``threads`` that spend ``idle`` milliseconds on waiting do while other programs use
    ``others`` cores."""
    if threads == 1:
        return "one thread waits for nobody"
    does = "sleep" if idle < SPINNING else "spin"
    return f"threads that wait {does}; other programs use {max(others, 0.0):.1f} cores"


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
