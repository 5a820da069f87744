"""Every family gives its reference's own numbers."""

import json
from pathlib import Path

import pytest

from dlmkit.cli.app import main

GOLDEN = Path(__file__).parent.parent / "golden"
FAMILIES = sorted(folder.name for folder in GOLDEN.iterdir())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_agrees_with_its_reference(family, capsys):
    assert main(["models", "verify", str(GOLDEN / family), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    meta = json.loads((GOLDEN / family / "meta.json").read_text())
    expected = {(case, name) for case, m in meta["cases"].items() for name in m["expected"]}
    assert {(d["case"], d["tensor"]) for d in found["differences"]} == expected
    # where the reference itself differs by as much, from machine to machine or from the exact value
    assert found["tolerance"] == (5e-5 if family in ("modernbert", "plaid") else 2e-5)
    assert max(d["largest"] for d in found["differences"]) <= found["tolerance"]
