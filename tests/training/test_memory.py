"""Freed memory is kept: what a step has freed, the next one finds."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from pathlib import Path
from dlmkit.training.memory import keep_freed
import torch

if sys.argv[1] == "keep":
    assert keep_freed()

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

before = resident()
held = [torch.ones(1_000_000) for _ in range(50)]
after = resident()
del held
print((resident() - before) / (after - before))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_freed_memory_is_kept():
    def kept(way):
        command = [sys.executable, "-c", SCRIPT, way]
        environment = {"PATH": "/usr/bin", "OMP_NUM_THREADS": "1"}
        return float(subprocess.check_output(command, text=True, env=environment))

    assert kept("keep") > 0.9
    assert kept("give back") < 0.1
