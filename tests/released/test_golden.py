"""Every family gives its reference's own numbers."""

import json
from pathlib import Path

import pytest

from dlmkit.cli.app import main

GOLDEN = Path(__file__).parent.parent / "golden"
LARGE = ("modernbert", "plaid", "ssd-lm")
"""Their logits reach 20 and more."""
FAMILIES = sorted(folder.name for folder in GOLDEN.iterdir())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_agrees_with_its_reference(family, capsys):
    assert main(["models", "verify", str(GOLDEN / family), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    meta = json.loads((GOLDEN / family / "meta.json").read_text())
    expected = {(case, name) for case, m in meta["cases"].items() for name in m["expected"]}
    assert {(d["case"], d["tensor"]) for d in found["differences"]} >= expected
    # where the reference itself differs by as much, from machine to machine or from the exact value
    assert found["tolerance"] == (5e-5 if family in LARGE else 2e-5)
    assert max(d["largest"] for d in found["differences"]) <= found["tolerance"]


@pytest.mark.parametrize(("family", "count"), [("llada", 7), ("dream", 6)])
def test_every_decoding_run_is_decoded_again_step_by_step(family, count, capsys):
    assert main(["models", "verify", str(GOLDEN / family), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    recorded = json.loads((GOLDEN / family / "decoding.json").read_text())["runs"]
    compared = {d["case"] for d in found["differences"] if d["tensor"] == "final_ids"}
    assert compared == {run["name"] for run in recorded}
    assert (len(compared), found["not_compared"]) == (count, [])


def test_a_run_that_went_otherwise_is_beyond_the_tolerance(golden, capsys):
    folder = golden("llada")
    content = json.loads((folder / "decoding.json").read_text())
    content["runs"][0]["steps"][0]["tokens"][0] += 1
    (folder / "decoding.json").write_text(json.dumps(content))
    assert main(["models", "verify", str(folder), "--json"]) == 8
    found = {
        (d["case"], d["tensor"]): d["largest"]
        for d in json.loads(capsys.readouterr().out)["differences"]
    }
    assert found["greedy_one_block", "steps"] == 1.0
    assert found["greedy_one_block", "final_ids"] == 0.0
