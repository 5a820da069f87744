"""The fuzz in short, and that it notices what it is there to notice."""

import json
import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"


def test_damaged_recipes_and_files_end_in_documented_codes_and_run_nothing(tmp_path):
    out = tmp_path / "fuzz.json"
    command = [sys.executable, FUZZ, "--recipes", "60", "--files", "14", "--json", out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(out.read_text())
    assert len(counts) == 35
    assert all(row["cases"] == (60 if row["name"] == "recipe" else 14) for row in counts)
    assert sum(sum(row["codes"].values()) for row in counts) > 300  # refused: the damage is read
    assert sum(row["read"] for row in counts) > 50  # harmless: the files are whole otherwise


def test_it_notices_what_runs_what_fails_and_what_hangs(tmp_path):
    """In a process of its own: an audit hook stays."""
    code = f"""
import signal, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, {str(FUZZ.parent)!r})
import fuzz
from dlmkit.errors import RecipeError
fuzz.SECONDS = 0.2
signal.signal(signal.SIGALRM, fuzz._late)
watch, counts = fuzz.Watch(Path({str(tmp_path)!r})), fuzz.Counts("x")
sys.path.insert(0, {str(tmp_path)!r})
Path({str(tmp_path / "planted.py")!r}).write_text("")
def refuse(): raise RecipeError("no")
def fail(): raise KeyError("x")
def hang(): time.sleep(60)
def run(): subprocess.run(["true"], check=False)
def write(): Path({str(tmp_path.parent / "elsewhere")!r}).write_text("")
def imported(): __import__("planted")
for act in (refuse, fail, hang, run, write, imported, lambda: None):
    fuzz.attempt(counts, watch, act, "case")
print(counts.cases, counts.read, dict(counts.codes), counts.unexpected, counts.stuck,
      counts.executed)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "7 4 {3: 1} 1 1 3", done.stderr
