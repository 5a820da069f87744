"""The dry run's memory: arithmetic against counts made otherwise, and against measured peaks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from training_runs import dlmkit

from dlmkit.training.activations import Activations
from dlmkit.training.needs import Sizes, needed

MIDDLE = """\
extends: ddlm_grammar
length: 64
space: {use: normalised, with: {dim: 64}}
network: {use: transformer, with: {width: 320, heads: 5, blocks: 4, time_features: 128}}
metric: []
train: {steps: 3, batch_size: 16, threads: 1}
"""


class Two(nn.Module):
    """Two blocks of 30 numbers each, and 12 numbers beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(5, 5) for _ in range(2))
        self.table = nn.Parameter(torch.zeros(3, 4))
        self.network = self

    def shard_units(self):
        return list(self.blocks)


def bytes_of(layout: str, processes: int, rows: int, **more) -> dict[str, int]:
    passes = (Activations(total=100 + 2 * 40, largest=2 * 8), Activations(100 + 4 * 40, 4 * 8))
    sizes = Sizes.of(Two(), *passes, checkpointing=False)
    items = needed(sizes, layout, processes, rows, more.get("on_cpu", False))
    return {item.what: item.bytes for item in items}


def test_a_copy_in_every_process_needs_what_one_process_needs():
    alone = bytes_of("alone", 1, 6)
    assert alone == {
        "weights": 4 * 72, "gradients": 4 * 72, "AdamW": 8 * 72, "EMA": 4 * 72,
        "activations": 100 + 6 * 40, "workspace": 2 * 6 * 8,
    }  # fmt: skip
    assert bytes_of("ddp", 8, 6) == alone
    assert bytes_of("fsdp", 1, 6) == alone


def test_shards_divide_what_is_kept_and_gather_what_runs():
    parts = bytes_of("fsdp", 8, 6)
    assert [parts[k] for k in ("weights", "gradients", "AdamW", "EMA")] == [36, 36, 72, 36]
    assert parts["gathered"] == 3 * 4 * 12 + 4 * 4 * 30
    assert parts["activations"] == bytes_of("alone", 1, 6)["activations"]
    assert "sampled copy" not in parts
    assert bytes_of("fsdp", 8, 6, on_cpu=True)["sampled copy"] == 4 * 72


def test_a_dry_run_reckons_with_1_8_and_64_gpus(tiny, capsys):
    more = ("--set", "train.batch_size=16")
    assert dlmkit("train", tiny, "--dry-run", "--json", *more) == 0
    report = json.loads(capsys.readouterr().out)
    found = {(e["parallel"], e["processes"]): e for e in report["layouts"]}
    assert list(found) == [("alone", 1), ("ddp", 8), ("fsdp", 8), ("ddp", 64), ("fsdp", 64)]
    assert [e["rows_per_pass"] for e in found.values()] == [16, 2, 2, 0, 0]
    assert found["alone", 1]["memory_bytes"] == report["memory_bytes"]
    for each in found.values():
        assert each["memory_bytes"] == sum(item["bytes"] for item in each["memory"])
    weights = {key: e["memory"][0]["bytes"] for key, e in found.items() if e["memory"]}
    assert weights["fsdp", 8] == weights["ddp", 8] // 8
    assert dlmkit("train", tiny, "--dry-run", *more) == 0
    said = capsys.readouterr().out
    assert "x 8" in said
    assert "train.batch_size has too few rows" in said


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["alone", "ddp", "fsdp"])
def test_the_estimate_is_within_a_quarter_of_the_measured_peak(tmp_path, layout):
    """Of the first process, by the kernel's own count of resident pages.

    The allocator is told to give pages back at once: what it keeps is no part of the estimate.
    """
    recipe = tmp_path / "middle.yaml"
    recipe.write_text(MIDDLE)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("peak.py"), recipe, layout, tmp_path],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "131072"},
        stdout=subprocess.PIPE, text=True, check=True, timeout=280,
    )  # fmt: skip
    first = json.loads(done.stdout)[0]
    assert first["peak"] > 100e6
    assert first["estimate"] == pytest.approx(first["peak"], rel=0.25)
