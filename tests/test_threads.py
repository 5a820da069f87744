"""How torch's threads wait is chosen before torch is loaded, whichever way in."""

import json
import os
import subprocess
import sys

import pytest

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
        "OMP_WAIT_POLICY=PASSIVE, GOMP_SPINCOUNT=1000, set by dlmkit",
        "PASSIVE",
    ]
    chosen = json.loads(said(SAY, OMP_WAIT_POLICY="active", GOMP_SPINCOUNT="7"))
    assert chosen == ["OMP_WAIT_POLICY=active, GOMP_SPINCOUNT=7", "active"]


def test_a_torch_that_was_there_before_is_said_and_the_variable_left_alone():
    words, variable = json.loads(said("import sys; sys.modules['torch'] = None\n" + SAY))
    assert (words, variable) == ("OMP_WAIT_POLICY not set: torch was loaded before dlmkit", None)


def test_what_is_in_force_comes_from_what_threads_do():
    assert in_force(2, 0.04) == "threads that wait sleep"
    assert "import dlmkit before torch" in in_force(2, 3.5)
    assert in_force(1, 3.5) == "one thread waits for nobody"
