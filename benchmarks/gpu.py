"""The figures of one GPU, in one script of less than eight minutes.

    python benchmarks/gpu.py [MODEL] [-n 512] [--json FILE]

Where torch finds no CUDA device it says "not measured" with the reason and ends with exit code 0.
With random weights of the size of CDCD's base model (8 blocks of width 1024, length 64, d 256; tied
head and V 32,768 ours), in bf16: the latency of one step at batch 1, eager, compiled and as a CUDA
graph; the share of the peak at large batch for runs of 32 and of 200 steps; the vocabulary step in
TFLOP/s; each attention backend, or why it does not work here; and refill against its count. With
MODEL: what exit rules save on it (as `dlmkit bench sampler --early-exit --device cuda`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sampling_step import NETWORKS, a_model

from dlmkit import devices, documents
from dlmkit.bench import device as machine
from dlmkit.bench.defaults import lists, rules
from dlmkit.bench.flops import evaluation_flops
from dlmkit.bench.measure import Work
from dlmkit.bench.plan import SamplerPlan
from dlmkit.bench.sampler import run
from dlmkit.bench.tables import lines
from dlmkit.bench.timing import interleaved
from dlmkit.errors import DlmkitError, PluginError
from dlmkit.kernels import vocabulary
from dlmkit.kernels.attention import BACKENDS, resolve_attention
from dlmkit.model import open_model
from dlmkit.sampling.inference import Inference
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import unconditional
from dlmkit.sampling.slots import constant, halves

SIZE = NETWORKS["cdcd_base"]
BF16 = torch.bfloat16
WAYS = {
    "eager": Inference(dtype=BF16),
    "compiled": Inference(dtype=BF16, compile=True),
    "graph": Inference(dtype=BF16, cuda_graphs=True),
}
BUDGET = 460.0
"""Seconds after which the remaining figures are left out, and said to be."""


def main() -> int:
    """Measure, print and write."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("model", metavar="MODEL", nargs="?", help="a run's folder or a checkpoint")
    made.add_argument("-n", "--count", type=int, default=512, help="texts of the exit comparison")
    made.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    options = made.parse_args()
    if not torch.cuda.is_available():
        reason = f"not measured: torch {torch.__version__} finds no CUDA device on this machine"
        print(reason)
        _write(options, {"measured": False, "reason": reason})
        return 0
    try:
        return _measure(options, devices.choose("cuda"))
    except DlmkitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _measure(options: argparse.Namespace, device: torch.device) -> int:
    began = time.monotonic()
    content: dict[str, Any] = {"measured": True, "machine": machine.describe(device)}
    content["versions"] = documents.versions()
    peak = machine.matmul_peak(device, BF16)
    content["peak"] = peak
    print(f"{content['machine']['gpu']}: best bf16 matmul here {peak / 1e12:.0f} TFLOP/s")
    figures: dict[str, Callable[[], Any]] = {
        "attention": lambda: attention(device),
        "vocabulary": lambda: vocabulary_step(device),
        "latency": lambda: latency(device),
        "utilisation": lambda: utilisation(device, peak),
        "refill": lambda: refill(device),
    }
    if options.model is not None:
        figures["exits"] = lambda: exits(options, device)
    for name, figure in figures.items():
        if time.monotonic() - began > BUDGET:
            print(f"{name}: not measured: {BUDGET:.0f} s were over")
            continue
        content[name] = figure()
        torch.cuda.empty_cache()
    _write(options, content)
    return 0


def _write(options: argparse.Namespace, content: Mapping[str, Any]) -> None:
    if options.json:
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def best(call: Callable[[], Any], rounds: int = 20) -> float:
    """Seconds of the fastest of ``rounds`` calls, synchronised, after two that warm up."""
    call(), call()
    return min(interleaved([call], rounds)[0])


def attention(device: torch.device) -> dict[str, Any]:
    """TFLOP/s of each backend at CDCD's base shape and at one where attention dominates."""
    backends: dict[str, Any] = {}
    for name in BACKENDS:
        try:
            backend = resolve_attention(name, device, BF16, 64)
        except PluginError as error:
            backends[name] = {"refused": str(error).splitlines()[0]}
            print(f"attention {name}: {backends[name]['refused']}")
            continue
        rates = {}
        for rows, length in ((256, 64), (16, 1024)):
            q, k, v = torch.randn(3, rows, 16, length, 64, device=device, dtype=BF16).unbind()
            seconds = best(partial(backend, q, k, v, None))
            rates[str(length)] = 4 * rows * 16 * length * length * 64 / seconds
        backends[name] = {"kernel": backend.kernel, "flops_per_second": rates}
        shown = ", ".join(f"{rate / 1e12:.1f} TFLOP/s at L {n}" for n, rate in rates.items())
        print(f"attention {name} ({backend.kernel}): {shown}")
    return backends


@torch.no_grad()
def vocabulary_step(device: torch.device) -> dict[str, Any]:
    """TFLOP/s of the vocabulary step: each form that works at V 32,768 and d 256."""
    vocab, dim = SIZE["vocab"], SIZE["dim"]
    table = torch.randn(vocab, dim, device=device, dtype=BF16)
    tables = vocabulary.Tables(table, table)
    forms: dict[str, Any] = {"chosen": str(vocabulary.choose(tables))}
    for batch in (8, 64):
        queries = batch * SIZE["length"]
        query = torch.randn(queries, dim, device=device, dtype=BF16) / dim**0.5
        for name in ("flash-cuda", "efficient-cuda", "online", "plain"):
            try:
                seconds = best(partial(vocabulary.FORMS[name], query, tables), 10)
            except RuntimeError as error:
                forms[f"{name} {batch}"] = {"refused": str(error).splitlines()[0]}
                continue
            rate = 4 * queries * vocab * dim / seconds
            forms[f"{name} {batch}"] = {"seconds": seconds, "flops_per_second": rate}
            print(f"vocabulary step, batch {batch}, {name}: {rate / 1e12:.0f} TFLOP/s")
    return forms


def work(parts: SamplingParts, texts: int, batch: int, steps: int, graphs: bool) -> Work:
    """``texts`` in ``batch`` slots to the end of the grid."""
    requests = unconditional(texts, SIZE["length"])
    width = halves if graphs else constant
    whole = replace(parts, exit=None, statistics={})
    return Work(whole, requests, 0, steps, batch, SIZE["length"], width)


def latency(device: torch.device) -> dict[str, Any]:
    """Seconds of a step at batch 1: the difference of a long and a short run, over its steps."""
    seconds = {}
    for name, way in WAYS.items():
        parts = a_model(SIZE, way, device)
        long, short = (work(parts, 1, 1, steps, way.cuda_graphs).run for steps in (110, 10))
        seconds[name] = (best(long, 3) - best(short, 3)) / 100
        print(f"batch 1, {name}: {1e6 * seconds[name]:.0f} us a step")
    return seconds


def utilisation(device: torch.device, peak: float) -> dict[str, Any]:
    """Texts a second and the share of the peak at batch 256."""
    by_steps = {}
    parts = a_model(SIZE, WAYS["graph"], device)
    flops = evaluation_flops(parts, parts.denoise.network, SIZE["length"])  # type: ignore[attr-defined]
    for steps in (32, 200):
        seconds = best(work(parts, 256, 256, steps, True).run, 2)
        share = 256 * steps * flops / (seconds * peak)
        by_steps[str(steps)] = {"texts_per_second": 256 / seconds, "utilisation": share}
        print(
            f"batch 256, {steps} steps: {256 / seconds:.0f} texts/s, "
            f"{100 * share:.0f} % of the best matmul"
        )
    return {"flops_per_evaluation": flops, **by_steps}


def refill(device: torch.device) -> dict[str, Any]:
    """Wall-clock speed-up over saving in row evaluations: batch 256, 1,024 texts that halt after
    10 to 64 steps of 64, evenly spread."""
    parts = a_model(SIZE, WAYS["graph"], device)
    when = 10 + (torch.arange(1024) * 37) % 55
    whole = work(parts, 1024, 256, 64, True)
    early = replace(whole, width=halves).ending(when)
    speed_up = best(whole.run, 2) / best(early.run, 2)
    saving = 64 * 1024 / int(when.sum())
    print(f"refill: {speed_up:.2f}x in time, {saving:.2f}x by count: kept {speed_up / saving:.2f}")
    return {"speed_up": speed_up, "saving": saving, "kept": speed_up / saving}


def exits(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """What exit rules save on a trained model."""
    subject = open_model(options.model, device=device)
    nothing = dict.fromkeys(("sampler", "grid", "steps", "batch_size", "guidance"))
    asked = lists(subject, {**nothing, "precision": "bf16+graphs"}, False, True)
    plan = SamplerPlan(
        options.model,
        asked,
        options.count,
        options.count,
        early_exit=True,
        rules=tuple(rules(subject, None, True)),
    )
    content = dict(run(subject, plan))
    print("\n".join(lines(content)))
    return content


if __name__ == "__main__":
    raise SystemExit(main())
