"""`dlmkit bench sampler --early-exit` of the four published models, at toy size, end to end."""

import json

import pytest

from dlmkit.cli.app import main
from dlmkit_grammar import data

SMALL = {
    "length": 12,
    "network.with.width": 16,
    "network.with.heads": 2,
    "network.with.blocks": 1,
    "train.steps": 2,
    "train.batch_size": 4,
    "train.threads": 1,
    "train.validation_rows": 4,
    "sample.steps": 3,
    "sample.batch_size": 4,
    "sample.measured": 2,
    "metric": "[]",
}


@pytest.mark.parametrize("name", ["plaid", "ssd", "langflow", "mdlm"])
def test_every_rule_has_a_verdict_or_a_reason(name, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "_TEXTS", {"train": 300, "validation": 100})
    run, out = tmp_path / "run", tmp_path / "bench.json"
    sets = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    assert main(["train", f"{name}_grammar", "--out", str(run), *sets]) == 0
    words = ["--early-exit", "-n", "8", "--rounds", "1", "--bound", "0.3", "--json", str(out)]
    assert main(["bench", "sampler", str(run), *words]) == 0
    document = json.loads(out.read_text())
    exits = [entry["extra_info"]["exit"] for entry in document["benchmarks"]]
    assert exits[:3] == ["none", "fixed", "oracle-exit"]
    rules = {curve["rule"] for curve in document["dlmkit"]["risk"]}
    assert rules >= {"entropy", "kl", "jeffreys", "margin", "stable-and-confident"}
    told = {verdict["rule"] for verdict in document["dlmkit"]["verdicts"]}
    assert rules - told == {note.split(" on ")[0] for note in document["dlmkit"]["notes"]} - told
    for entry in document["benchmarks"]:
        info = entry["extra_info"]
        assert info["flops_per_evaluation"] > 0
        if info["replay_agreement"] is not None:
            assert info["replay_agreement"] == 1.0
    (steps,) = document["dlmkit"]["breakdown"]
    assert steps["seconds"].keys() >= {"network", "vocabulary", "sampler", "jeffreys"}
    for curve in document["dlmkit"]["risk"]:  # nats of a float's range, not of an invented number
        assert all(point["threshold"] < 300.0 for point in curve["points"])
