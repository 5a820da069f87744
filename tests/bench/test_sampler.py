"""The whole bench at toy size, and what is made of its document."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_toy import TOY

from dlmkit.bench import device, html, plots
from dlmkit.bench.parts import default_model
from dlmkit.cli.app import main
from dlmkit.errors import UsageError
from dlmkit.model import open_model
from dlmkit.registry.lookup import Registry

KEYS = {
    "sampler",
    "grid",
    "exit",
    "threshold",
    "evaluations_mean",
    "row_evaluations",
    "token_disagreement",
    "row_disagreement",
    "speedup",
    "speedup_best_fixed",
    "speedup_oracle_exit",
    "quality",
}


def bench(*words: str) -> int:
    sets = [word for override in TOY for word in ("--set", override)]
    return main(["bench", "sampler", "markov", *sets, "--rounds", "1", *words])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("bench")
    words = ["--json", str(folder / "a.json"), "--html", str(folder / "a.html")]
    words += ["--plots", str(folder / "plots"), "-n", "24", "--bound", "0.2"]
    exits = "entropy,margin,stable-and-confident,entropy:threshold=0.2"
    freeze = ["--freeze", "entropy:threshold=0.3"]
    assert bench("--early-exit", "--exit", exits, *freeze, *words) == 0
    return folder, json.loads((folder / "a.json").read_text())


def test_every_baseline_is_there_with_every_key(made):
    entries = made[1]["benchmarks"]
    exits = [entry["extra_info"]["exit"] for entry in entries]
    assert exits[:3] == ["none", "fixed", "oracle-exit"]
    assert {"entropy", "margin", "entropy:threshold=0.2"} <= set(exits)
    assert "freeze entropy:threshold=0.3" in exits
    assert "regridded" in exits
    assert len({entry["name"] for entry in entries}) == len(entries)
    for entry in entries:
        assert set(entry["extra_info"]) >= KEYS
        assert {"nll", "entropy_4", "distinct_4", "ngram_tv_2"} <= set(
            entry["extra_info"]["quality"]
        )


def test_figures_hang_together(made):
    entries = {entry["extra_info"]["exit"]: entry["extra_info"] for entry in made[1]["benchmarks"]}
    full, oracle = entries["none"], entries["oracle-exit"]
    assert full["token_disagreement"] == oracle["token_disagreement"] == 0.0
    assert full["row_evaluations"] == 24 * 6
    wanted = full["tokens_per_second"] / full["texts_per_second"]  # nothing is given or cut
    assert full["tokens_per_evaluation"] == pytest.approx(wanted / 6)
    assert oracle["speedup"] == pytest.approx(full["speedup_oracle_exit"])
    assert entries["fixed"]["speedup"] == pytest.approx(full["speedup_best_fixed"])
    assert oracle["speedup"] >= 1.0
    for info in entries.values():
        assert info["row_evaluations"] >= info["row_evaluations_needed"]
        assert info["row_evaluations_needed"] == round(24 * info["evaluations_mean"])
        if info["exit"] in ("fixed", "oracle-exit", "entropy", "margin"):
            assert info["replay_agreement"] == 1.0  # a replay foretells a real run exactly
        low, high = info["token_disagreement_interval"]
        assert low <= info["token_disagreement"] <= high


def test_one_verdict_a_rule(made):
    verdicts = made[1]["dlmkit"]["verdicts"]
    notes = " ".join(made[1]["dlmkit"]["notes"])
    for rule in ("entropy", "margin", "stable-and-confident"):
        told = [v["sentence"] for v in verdicts if v["rule"] == rule]
        assert len(told) == 1 or rule in notes
        assert all(re.match(rf"{rule} \S+: (no )?gain over", line) for line in told)


def test_thresholds_keep_the_bound_on_the_texts_they_are_chosen_on(made):
    document = made[1]
    chosen = {e["extra_info"]["exit"]: e["extra_info"]["threshold"] for e in document["benchmarks"]}
    for curve in document["dlmkit"]["risk"]:
        if chosen.get(curve["rule"]) is None:
            continue
        kept = [p for p in curve["points"] if p["calibration"] <= 0.2]
        best = min(kept, key=lambda p: p["evaluations"])
        (taken,) = [p for p in kept if p["threshold"] == chosen[curve["rule"]]]
        assert taken["evaluations"] == best["evaluations"]


def test_pytest_benchmark_reads_it(made):
    command = Path(sys.executable).parent / "pytest-benchmark"
    done = subprocess.run(
        [command, "compare", made[0] / "a.json"], capture_output=True, text=True, check=True
    )
    assert "oracle-exit" in done.stdout
    assert "Failed to load" not in done.stdout + done.stderr


def test_pictures_and_a_report_that_needs_nothing_else(made):
    folder, document = made
    names = {path.stem for path in (folder / "plots").iterdir()}
    assert names == set(plots.PLOTS)
    for path in (folder / "plots").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    page = (folder / "a.html").read_text()
    assert page == html.report(document) or "<figure>" in page
    assert not re.search(r"(src|href)=[\"']?https?:", page)
    assert "prefers-color-scheme: dark" in page
    assert page.count("data:image/png;base64,") == 2 * len(names)
    for verdict in document["dlmkit"]["verdicts"]:
        assert verdict["sentence"] in page


def test_a_table_without_exits(capsys: pytest.CaptureFixture[str]):
    lists = ["--sampler", "euler,dpm-2m", "--grid", "warped,karras:rho=3", "--steps", "3,4"]
    assert bench(*lists, "--batch-size", "8", "-n", "8") == 0
    captured = capsys.readouterr()
    assert captured.out.count("karras:rho=3 | batch 8 | float64") == 2
    assert max(len(line.rstrip()) for line in captured.out.splitlines()) <= 100
    assert "NLL" in captured.out
    assert "gain over" not in captured.out
    assert "timing 8 rows" in captured.err


def test_mixed_difficulty_has_a_fixed_exit_a_bucket(capsys: pytest.CaptureFixture[str]):
    words = ["--early-exit", "--exit", "entropy", "-n", "16", "--given", "0,80"]
    assert bench(*words) == 0
    assert "over the best fixed exit" in capsys.readouterr().out


def test_bad_words(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    for words, code, message in (
        (["--sampler", "eulr"], 3, "euler"),
        (["--exit", "all"], 3, "rules"),
        (["--steps", "0"], 2, "--steps"),
        (["--device", "tpu"], 2, "expected auto, cpu, or an accelerator"),
        (["--json", str(tmp_path / "no" / "x.json")], 2, "no folder"),
        (["--precision", "bf16+graphs"], 3, "cuda_graphs"),
    ):
        assert bench(*words) == code, words
        assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_says_why(capsys: pytest.CaptureFixture[str]):
    assert bench("--device", "cuda") == 2
    assert "--device cuda: torch cannot use it here: " in capsys.readouterr().err


def test_models_by_name():
    own = [name for name in Registry.load(third_party=False).models() if name.startswith("ddlm:")]
    assert default_model() == (own[0] if own else "markov")
    with pytest.raises(UsageError, match="dlmkit train ddlm_grammar"):
        open_model("ddlm_grammar")


def test_memory_is_measured_where_the_system_allows():
    with device.peak_memory(torch.device("cpu")) as memory:
        held = torch.ones(40_000_000)
    assert memory.peak is None or memory.peak > held.nbytes
