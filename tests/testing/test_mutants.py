"""The kit is tested by mutants: each seeded bug is found by the check that is there for it.

``python tests/testing/test_mutants.py`` prints the table.
"""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from dlmkit.plugin import KINDS
from dlmkit.registry.loading import Loaded
from dlmkit.registry.lookup import Registry
from dlmkit.testing.suite import IMPORTER, PLUGIN, all_checks, cases

sys.path.insert(0, str(Path(__file__).parent))
import mutants_of_devices  # noqa: F401
import mutants_of_sampling  # noqa: F401
import mutants_of_text  # noqa: F401
import mutants_of_unmasking  # noqa: F401
from mutants import MUTANTS, Mutant

REGISTRY = Registry.load(third_party=False)


def found(mutant: Mutant) -> frozenset[str]:
    """The checks that a mutant fails."""
    plugin = Loaded("mutants", "tests", "0", "json", components=(mutant.component,))
    found = cases("mutants", replace(REGISTRY, loaded=(*REGISTRY.loaded, plugin)))
    outcomes = [case.run() for case in found if case.component != "plugin"]
    return frozenset(o.check for o in outcomes if o.outcome == "failed")


@pytest.fixture(scope="module")
def everything() -> list[frozenset[str]]:
    """What each mutant fails, found in a process without the tests' own checks of types."""
    command = [sys.executable, __file__, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [frozenset(failed) for failed in json.loads(done.stdout)]


@pytest.mark.parametrize(
    "index", range(len(MUTANTS)), ids=[f"{m.component.kind}-{m.check}" for m in MUTANTS]
)
def test_every_mutant_is_found_by_its_check(index, everything):
    mutant, failed = MUTANTS[index], everything[index]
    assert mutant.check in failed, f"{mutant.bug}: survives, found only {sorted(failed)}"
    assert failed <= {mutant.check, *mutant.also}


def test_every_check_has_a_mutant():
    known = {(m.component.kind, m.check) for m in MUTANTS}
    anywhere = {m.check for m in MUTANTS}
    for kind, checks in all_checks().items():
        for check in checks:
            if kind in KINDS:
                assert (kind, check.name) in known, f"no mutant for {kind}: {check.name}"
            elif kind not in (PLUGIN, IMPORTER):  # test_suite.py and test_importers.py have those
                assert check.name in anywhere, f"no mutant for {check.name}"


def table() -> str:
    """One line a mutant: its kind, the bug, the check that finds it, and who else notices."""
    lines = ["| kind | bug | found by | noticed by as well |", "|---|---|---|---|"]
    for mutant in MUTANTS:
        failed = found(mutant)
        state = mutant.check if mutant.check in failed else f"**survives** {mutant.check}"
        others = ", ".join(sorted(failed - {mutant.check}))
        lines.append(f"| {mutant.component.kind} | {mutant.bug} | {state} | {others} |")
    counts = Counter("**survives**" in line for line in lines[2:])
    return "\n".join([*lines, "", f"{counts[False]} of {len(MUTANTS)} mutants are found."])


if __name__ == "__main__":
    as_json = sys.argv[1:] == ["--json"]
    print(json.dumps([sorted(found(mutant)) for mutant in MUTANTS]) if as_json else table())
