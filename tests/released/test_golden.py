"""Every family gives its reference's own numbers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dlmkit.cli.app import main
from dlmkit.registry.lookup import Registry
from dlmkit.released.opening import open_released
from dlmkit.released.verify import verify

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


@pytest.mark.parametrize("family", ["llada", "duo", "ssd-lm", "llada2-mini"])
def test_a_case_whose_inputs_are_not_the_models_is_one_line(golden, family, capsys):
    folder = golden(family)
    meta = json.loads((folder / "meta.json").read_text())
    case = next(iter(meta["cases"]))
    tensors = load_file(folder / "cases.safetensors")
    for name in meta["cases"][case]["inputs"]:
        if not tensors[f"{case}.{name}"].is_floating_point():
            tensors[f"{case}.{name}"] = torch.full_like(tensors[f"{case}.{name}"], 10**6)
    save_file(tensors, folder / "cases.safetensors")
    assert main(["models", "verify", str(folder)]) == 6
    outside = capsys.readouterr().err.strip().splitlines()
    meta["cases"][case]["inputs"] = []
    (folder / "meta.json").write_text(json.dumps(meta))
    assert main(["models", "verify", str(folder)]) == 6
    none = capsys.readouterr().err.strip().splitlines()
    assert [len(outside), len(none)] == [1, 1]
    assert f"the case {case} cannot be computed" in outside[0]
    assert "it has no input" in none[0]


@pytest.mark.parametrize("family", ["llada", "ssd-lm", "plaid"])
def test_whole_numbers_may_be_stored_in_fewer_bits(golden, family):
    path = golden(family) / "cases.safetensors"
    stored = load_file(path)
    save_file({n: t.int() if t.dtype == torch.int64 else t for n, t in stored.items()}, path)
    assert verify(path.parent, Registry.load(third_party=False)).agrees


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


def _recorded(folder, name, **settings):
    """The run ``name`` alone, by other settings, and what is compared of it."""
    path = folder / "decoding.json"
    run = next(r for r in json.loads(path.read_text())["runs"] if r["name"] == name)
    run["settings"] |= settings
    path.write_text(json.dumps({"runs": [run]}))
    found = verify(folder, Registry.load(third_party=False))
    return found.missing, {d.tensor: d.largest for d in found.differences if d.case == name}


def test_a_threshold_needs_no_steps(golden):
    missing, found = _recorded(golden("llada"), "threshold_blocks", steps=2)
    assert (missing, found["network_calls"], found["steps"]) == ([], 0.0, 0.0)


def test_a_cut_that_leaves_every_token_changes_no_run_of_dream(golden):
    folder = golden("dream")
    size = json.loads((folder / "meta.json").read_text())["sizes"]["vocab"]
    missing, found = _recorded(folder, "entropy", top_p=0.999999, top_k=size - 1)
    assert (missing, found["final_ids"], found["steps"]) == ([], 0.0, 0.0)
    _, found = _recorded(folder, "entropy", top_p=None, top_k=1)
    assert found["steps"] > 0  # of one token each, all positions are as sure


def test_dreams_margin_is_the_lead_of_the_likeliest_token(golden):
    folder = golden("dream")
    registry = Registry.load(third_party=False)
    opened = open_released(folder, registry, dtype=torch.float32)
    objective, table = opened.assembly.objective.eval(), opened.assembly.objective.space.table
    recorded = json.loads((folder / "decoding.json").read_text())["runs"][0]
    run = {**recorded, "settings": {**recorded["settings"], "alg": "topk_margin"}}
    decoded = opened.family.decoded(objective, run)
    assert decoded is not None
    ids, mask = torch.tensor(run["prompt_ids"]), run["settings"]["mask_token_id"]
    ids = torch.cat((ids, ids.new_full((1, run["settings"]["max_new_tokens"]), mask)), dim=1)
    for taken in decoded.taken:
        with torch.no_grad():
            network = objective.network
            p = network.after(network.logits(table(ids), None)).softmax(dim=-1)
        first, second = p.topk(2, dim=-1).values.unbind(dim=-1)
        lead = torch.where(ids == mask, first - second, -1.0)[0]
        best = lead.topk(len(taken.positions)).indices
        assert sorted(best.tolist()) == taken.positions
        assert torch.allclose(lead[taken.positions], torch.tensor(taken.confidence), atol=1e-5)
        ids[0, taken.positions] = p.argmax(dim=-1)[0, taken.positions]
    assert torch.equal(ids, decoded.ids)
