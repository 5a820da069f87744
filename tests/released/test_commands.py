"""A made-up checkpoint of every family, as the hub has it, goes through the commands."""

import json

import pytest

from dlmkit.bench.shelf import rules
from dlmkit.cli.app import main

from .test_golden import FAMILIES

PICKLED = ("ssd-lm",)
"""Released as several pickles: imported first."""


@pytest.mark.parametrize("family", FAMILIES)
def test_sample_bench_eval_trace_and_export(golden, tmp_path, capsys, family):
    def run(*words):
        assert main([str(word) for word in words]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    folder = golden(family, words=True)
    if family in PICKLED:
        run("import", "--pickled", folder, "--out", tmp_path / "imported")
        folder = tmp_path / "imported"
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"w{i} w{i + 1} w{i} w{i + 2}" for i in range(1, 60)))
    short = ("--set", "length=12", "--set", "sample.steps=3")
    drawn = ("-n", "2", "--length", "12", "--steps", "3", "--json")
    texts = run("sample", folder, *drawn)
    assert len(json.loads(texts)) == 2
    few = ("--steps", "3", "-n", "8", "--batch-size", "8", "--rounds", "1")
    assert "evaluations" in run("bench", "sampler", folder, *few, *short)
    measured = ("--metric", "distinct", "--out", tmp_path / "a.json")
    named = ("--set", f"data.with.paths={text}")
    run("eval", folder, "-n", "2", *measured, *named, *short)
    assert "distinct_1" in (tmp_path / "a.json").read_text()
    run("trace", folder, "-n", "2", "--out", tmp_path / "trace", *short)
    run("export", folder, tmp_path / "out")
    assert run("sample", tmp_path / "out", *drawn) == texts


def test_exits_and_decoders_are_judged_without_any_text(golden, tmp_path, capsys, monkeypatch):
    folder, short = golden("llada", words=True), ("--set", "length=8")
    trace, certificate = tmp_path / "trace", tmp_path / "certificate.json"
    sampled = ("-n", "40", "--steps", "5")
    assert main(["trace", str(folder), *sampled, "--out", str(trace), *short]) == 0
    promise = ("--epsilon", "0.3", "--delta", "0.2", "--rule", "entropy")
    assert main(["exit", "calibrate", str(trace), *promise, "--out", str(certificate)]) == 0
    assert "epsilon" in certificate.read_text()
    bench = ["bench", "sampler", str(folder), *short, "--steps", "4"]
    assert main([*bench, "--early-exit", "-n", "40", "--rounds", "1"]) == 0
    some = {"confidence | schedule", "confidence | threshold"}
    monkeypatch.setattr(
        "dlmkit.bench.decoders.rules", lambda model: [r for r in rules(model) if r.name in some]
    )
    capsys.readouterr()
    assert main([*bench, "--decoders", "-n", "8"]) == 0
    out = capsys.readouterr().out
    assert "bound by 16 keyed draws" in out
    assert all(f"{rule}: " in out for rule in some)
