"""The script that injects faults, with small counts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "faults.py"
COUNTS = ("--kills=6", "--random=2", "--corruptions=7", "--full=4", "--jobs=1", "--pairs=1")


@pytest.mark.slow
def test_every_fault_ends_as_documented(tmp_path):
    result = tmp_path / "faults.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, *COUNTS, "--json", result],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=590,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(result.read_text())["rows"]
    assert [row["count"] for row in rows[:4]] == [6, 2, 7, 4]
    assert len(rows) == 20
    assert all(row["good"] == row["count"] > 0 or "needs root" in row["expected"] for row in rows)
