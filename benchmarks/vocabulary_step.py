"""The vocabulary step beside its plain form and its own matrix products (tied heads).

    python benchmarks/vocabulary_step.py [--quick] [--device cuda] [--json FILE]

V 32,768, d 256, L 64 at batch 4 and 8. All cases give the mean of x0 and the log-normaliser; the
plain form computes logits, their softmax, its product with the table, and a log-sum-exp. "plain
with statistics" adds the entropy and the Jeffreys divergence as sums over the vocabulary, which
is what an exit rule costs without the identities. "certainty" is what an order or a quota of a
masked model reads, of logits that are there: the likeliest tokens and the entropy. "matmuls" are
the two products alone, into buffers made before. Temporary memory is the peak of allocations minus
releases during one call, read from the profiler's memory records (on a GPU: from the allocator),
without its two results.
"""

from __future__ import annotations

from typing import Any

import rounds
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.options import Normalised, Nothing
from dlmkit.core.points import NormalisedSpace
from dlmkit.core.tokens import positions_at_once
from dlmkit.kernels import vocabulary
from dlmkit_samplers import statistics

LENGTH = 64


def main() -> None:
    """Measure, print, and write."""
    options = rounds.parser(__doc__).parse_args()
    device, count = rounds.begin(options)
    shape = (4096, 64) if options.quick else (32768, 256)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with torch.no_grad():
        measured = [measure(*shape, batch, device, dtype, count, options.clock) for batch in (4, 8)]
    for report in measured:
        show(report)
    rounds.finish({"machine": rounds.machine(device, options.clock), "results": measured}, options)


def measure(
    vocab: int,
    dim: int,
    batch: int,
    device: torch.device,
    dtype: torch.dtype,
    count: int,
    clock: str,
) -> dict[str, Any]:
    """All figures of one batch size."""
    space = a_space(vocab, dim).to(device)
    ready = space.prepared(dtype)
    torch.manual_seed(1)
    query = (torch.randn(batch, LENGTH, dim) * 6 / dim**0.5).to(device)
    before = query + 0.01 * torch.randn_like(query)
    plain = ready.tables()
    assert plain is not None
    tables = plain.to(dtype)
    flat = query.flatten(0, 1).to(dtype)
    logits = torch.empty(len(flat), vocab, device=device, dtype=dtype)
    mean = torch.empty_like(flat)
    earlier, now = predict(ready, before), predict(ready, query)
    log_r = (before.flatten(0, 1).to(dtype) @ tables.keys.T).log_softmax(dim=-1)

    blocks = logits.split(positions_at_once(device, vocab))

    def matmuls() -> None:
        torch.mm(flat, tables.keys.T, out=logits)
        torch.mm(logits, tables.values, out=mean)

    cases = {
        ready.kernel: lambda: ready.read(query),
        "online": lambda: vocabulary.online(flat, tables),
        "plain": lambda: vocabulary.plain(flat, tables),
        "plain with statistics": lambda: plainly(flat, log_r, tables),
        "matmuls": matmuls,
        "statistics": lambda: cheaply(ready, now, earlier),
        "certainty": lambda: [vocabulary.certainty(block) for block in blocks],
    }
    seconds = rounds.summary(rounds.rounds(cases, count, device, clock))
    memory = temporary(lambda: ready.read(query), device)
    return {
        "vocabulary": vocab,
        "channels": dim,
        "length": LENGTH,
        "batch": batch,
        "dtype": str(dtype).removeprefix("torch."),
        "kernel": ready.kernel,
        "seconds": seconds,
        "times_plain": rounds.ratio(seconds, "plain", ready.kernel),
        "times_plain_with_statistics": rounds.ratio(seconds, "plain with statistics", ready.kernel),
        "share_of_matmul_speed": rounds.ratio(seconds, "matmuls", ready.kernel),
        "certainty_share_of_matmuls": rounds.ratio(seconds, "certainty", "matmuls"),
        "statistics_share_of_step": rounds.ratio(seconds, "statistics", ready.kernel),
        "temporary_bytes": memory,
        "temporary_share_of_logits": memory / (logits.numel() * logits.element_size()),
        "tflops": 4 * logits.numel() * dim / seconds[ready.kernel]["min"] / 1e12,
        "entropy_error_nats": entropy_error(space, ready, now, query),
    }


def a_space(vocab: int, dim: int) -> NormalisedSpace:
    torch.manual_seed(0)
    context = BuildContext(length=LENGTH, vocab_size=vocab)
    return NormalisedSpace(Normalised(dim=dim, init_std=1.0), context)


def predict(space: EmbeddingSpace, query: Tensor) -> Prediction:
    x0, lse = space.read(query)
    return Prediction(x0, query, lse, x0, x0)


def plainly(query: Tensor, log_r: Tensor, tables: vocabulary.Tables) -> tuple[Tensor, ...]:
    """x0, log-normaliser, entropy and Jeffreys divergence by sums over the vocabulary.

    ``log_r`` are the log-probabilities of the step before, kept from then.
    """
    logits = query @ tables.keys.T
    log_p = logits.log_softmax(dim=-1)
    p = log_p.exp()
    entropy = -(p * log_p).sum(dim=-1)
    jeffreys = ((p - log_r.exp()) * (log_p - log_r)).sum(dim=-1)
    return p @ tables.values, logits.logsumexp(dim=-1), entropy, jeffreys


def cheaply(space: EmbeddingSpace, now: Prediction, before: Prediction) -> tuple[Tensor, ...]:
    """Entropy and Jeffreys divergence of every row by the identities, as the loop has them."""
    yes = torch.ones(len(now.lse), dtype=torch.bool, device=now.lse.device)
    generated = yes[:, None].expand(now.lse.shape)
    context = BuildContext(length=LENGTH)
    kinds = (statistics.Entropy, statistics.Jeffreys)
    return tuple(k(Nothing(), context)(space, now, before, yes, generated) for k in kinds)


def entropy_error(
    space: NormalisedSpace, ready: EmbeddingSpace, now: Prediction, query: Tensor
) -> float:
    """The largest difference of a position's entropy from the plain form in the same dtype."""
    entropy = statistics.Entropy(Nothing(), BuildContext(length=LENGTH))
    log_p = space.logits(query).log_softmax(dim=-1)
    exact = -(log_p.exp() * log_p).sum(dim=-1)
    return float((entropy.per_position(ready, now, now) - exact).abs().max())


def temporary(call: rounds.Case, device: torch.device) -> int:
    """Bytes at the peak of one call beyond what it found and what it returns."""
    call()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        start = torch.cuda.memory_allocated(device)
        result = call()  # held while what is left of it is read
        kept = torch.cuda.memory_allocated(device) - start
        peak = torch.cuda.max_memory_allocated(device) - start
        del result
        return int(peak - kept)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = call()
    steps = [
        (event.start_ns(), event.nbytes())
        for event in seen.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    del result
    held = peak = 0
    for _, size in sorted(steps):
        held += size
        peak = max(peak, held)
    return int(peak - held)


def show(report: dict[str, Any]) -> None:
    """One figure a line, by the minimum of the rounds and (by the median)."""
    print(
        f"V {report['vocabulary']}, d {report['channels']}, L {report['length']}, "
        f"batch {report['batch']}, {report['dtype']}: {report['kernel']}"
    )
    for name, times in report["seconds"].items():
        print(f"  {name:24s} {times['min'] * 1e3:9.2f} ms  ({times['median'] * 1e3:.2f})")
    for name in (
        "times_plain",
        "times_plain_with_statistics",
        "share_of_matmul_speed",
        "statistics_share_of_step",
        "certainty_share_of_matmuls",
    ):
        print(f"  {name:28s} {report[name]['min']:.4f}  ({report[name]['median']:.4f})")
    for name in ("temporary_share_of_logits", "entropy_error_nats"):
        print(f"  {name:28s} {report[name]:.2e}")


if __name__ == "__main__":
    main()
