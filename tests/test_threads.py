"""How torch's threads wait is chosen before torch is loaded, whichever way in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlmkit import threads
from dlmkit.threads import in_force

WATCH = """
import os, sys

class Torch:
    "Says how threads are to wait when somebody first asks for torch."
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("asked for torch:", os.environ.get("OMP_WAIT_POLICY"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Torch())
sys.argv[1:] = ["sample", "ddlm-mini", "-n", "1"]
"""
WAYS_IN = {
    "console script": "from importlib.metadata import entry_points as e; "
    "(script,) = e(group='console_scripts', name='dlmkit'); sys.exit(script.load()())",
    "python -m, torchrun -m": "import runpy; runpy.run_module('dlmkit', run_name='__main__')",
    "Python": "import dlmkit; dlmkit.load('ddlm-mini')",
    "a module of it": "import dlmkit.kernels.attention",
    "transformers": "import dlmkit.hf",
}
SPINS = "300000" if Path("/proc/stat").exists() else "1000"
CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def said(program: str, **environment: str) -> str:
    unset = {name: value for name, value in os.environ.items() if name not in CHOICES}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**unset, **environment},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.mark.parametrize("way", WAYS_IN)
def test_threads_wait_passively_before_torch_is_loaded(way):
    assert said(WATCH + WAYS_IN[way]) == "asked for torch: PASSIVE"


@pytest.mark.parametrize("way", WAYS_IN)
def test_what_the_user_chose_stays(way):
    chosen = said(WATCH + WAYS_IN[way], OMP_WAIT_POLICY="ACTIVE")
    assert chosen == "asked for torch: ACTIVE"
    assert said(WATCH + WAYS_IN[way], GOMP_SPINCOUNT="1000") == "asked for torch: None"


SAY = """
import json, os
from dlmkit.threads import waiting
print(json.dumps([waiting(), os.environ.get("OMP_WAIT_POLICY")]))
"""


def test_what_threads_were_asked_is_said_with_who_asked():
    assert json.loads(said(SAY)) == [
        f"OMP_WAIT_POLICY=PASSIVE, GOMP_SPINCOUNT={SPINS}, set by dlmkit",
        "PASSIVE",
    ]
    chosen = json.loads(said(SAY, OMP_WAIT_POLICY="active", GOMP_SPINCOUNT="7"))
    assert chosen == ["OMP_WAIT_POLICY=active, GOMP_SPINCOUNT=7", "active"]


def test_a_torch_that_was_there_before_is_said_and_the_variable_left_alone():
    words, variable = json.loads(said("import sys; sys.modules['torch'] = None\n" + SAY))
    assert (words, variable) == ("OMP_WAIT_POLICY not set: torch was loaded before dlmkit", None)


def test_what_is_in_force_comes_from_what_threads_do():
    assert in_force(2, 0.04, 0.93) == "threads that wait sleep; other programs use 0.9 cores"
    assert in_force(2, 3.5, -0.02) == "threads that wait spin; other programs use 0.0 cores"
    assert in_force(1, 3.5, 0.0) == "one thread waits for nobody"


TURNS = """
import json, threading, time
from dlmkit import threads

look, told = [0.0], threading.Semaphore(0)  # released once a look
def used_by_others(seconds):
    told.release()
    time.sleep(0.01)
    return look[0]
threads.used_by_others = used_by_others

def asleep(others, expected):
    "Whether threads sleep soon after others began to use so many cores."
    look[0] = others
    for _ in range(10):
        told.acquire()
    end = time.monotonic() + 20.0
    while (asleep := threads.idle_milliseconds() < threads.SPINNING) != expected:
        if time.monotonic() > end:
            break
    return asleep

threads.follow_load()
turns = [(0.0, False), (1.0, True), (0.15, True), (0.0, False), (0.15, False), (-1.0, True)]
print(json.dumps([asleep(*turn) == turn[1] for turn in turns]))
"""


@pytest.mark.skipif(SPINS == "1000", reason="this system does not say who is busy")
@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) == 1, reason="two threads of one core always sleep"
)
def test_threads_sleep_while_others_want_their_cores_and_spin_while_they_are_free():
    cores = str(max(2, len(os.sched_getaffinity(0))))
    assert json.loads(said(TURNS, OMP_NUM_THREADS=cores)) == [True] * 6


@pytest.mark.parametrize(
    "choice", [{"OMP_WAIT_POLICY": "PASSIVE"}, {"GOMP_SPINCOUNT": "7"}, {"OMP_NUM_THREADS": "1"}]
)
def test_nobody_is_followed_where_the_user_chose_or_one_thread_computes(choice):
    count = "import threading; from dlmkit.threads import follow_load; follow_load(); "
    environment = {"OMP_NUM_THREADS": "2", **choice}
    assert said(count + "print(threading.active_count())", **environment) == "1"


def test_what_others_use_is_what_is_busy_without_what_this_process_used(monkeypatch, tmp_path):
    core = min(os.sched_getaffinity(0))
    tick = os.sysconf("SC_CLK_TCK")
    row = "cpu{} {} 0 {} 700 800 0 0 {} 9 9\n"
    mine, clock, busy = 5.0, 100.0, tmp_path / "stat"

    def pass_time(seconds):
        nonlocal mine, clock
        mine, clock = mine + 0.5, clock + seconds
        # user + system + steal: 1.5 of 2 seconds, half a second of it this process's
        busy.write_text(
            row.format("", 9999, 9999, 9999)
            + row.format(core, 100 + tick, 50 + tick // 4, tick // 4)
            + row.format(10**6, 9999, 9999, 9999)  # a core that is not this process's
            + "intr 1 2 3\n"
        )

    busy.write_text(row.format(core, 100, 50, 0))
    monkeypatch.setattr(threads, "_STAT", busy)
    monkeypatch.setattr(threads.time, "sleep", pass_time)
    monkeypatch.setattr(threads.time, "process_time", lambda: mine)
    monkeypatch.setattr(threads.time, "monotonic", lambda: clock)
    assert threads.used_by_others(2.0) == pytest.approx(0.5)
