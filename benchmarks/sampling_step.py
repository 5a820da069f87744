"""A sampling step beside its own matrix products, and beside the machine's best ones.

    python benchmarks/sampling_step.py [--quick] [--device cuda] [--batch 8] [--json FILE]

A step is one turn of the sampling loop at constant batch shape: the network, the vocabulary step,
the sampler, an entropy and a Jeffreys divergence, and an exit rule that never holds. Its matrix
products are recorded while one turn runs and then done alone, with the same shapes and strides,
into buffers made before; attention counts as its two products. "share" is their time over the
step's. "peak share" is the step's rate, in FLOP of those products, over the best square product.
With --profile the operators of a step are listed by their time.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import rounds
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import ModelDenoise
from dlmkit.plugin import Part
from dlmkit.registry.lookup import Registry
from dlmkit.sampling.inference import Inference
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import unconditional
from dlmkit.sampling.runner import stream
from dlmkit.sampling.slots import constant
from dlmkit.sampling.snapshot import Snapshot

NETWORKS: dict[str, dict[str, int]] = {
    "ddlm_small": {"width": 128, "blocks": 5, "heads": 4, "dim": 32, "vocab": 128, "length": 80},
    "medium": {"width": 512, "blocks": 6, "heads": 8, "dim": 128, "vocab": 8192, "length": 64},
    "cdcd_base": {
        "width": 1024,
        "blocks": 8,
        "heads": 16,
        "dim": 256,
        "vocab": 32768,
        "length": 64,
    },
}
"""The recipe ddlm_small, one between, and CDCD's base (2211.15089: 8 blocks of width 1024, length
64, d 256, a vocabulary of 32,000; it states no number of heads, and not if its head is tied)."""
PRODUCT = tuple[tuple[Any, ...], ...]
"""Shapes and strides of the two factors of a product, and whether it is in integers."""


def main() -> None:
    """Measure, print, and write."""
    options = rounds.parser(__doc__)
    options.add_argument("--batch", type=int, default=8, help="rows side by side")
    options.add_argument("--network", choices=NETWORKS, action="append", help="default: all")
    options.add_argument("--int8", action="store_true", help="also with sample.int8 (CPU)")
    options.add_argument("--bf16", action="store_true", help="also with sample.precision: bf16")
    options.add_argument("--profile", action="store_true", help="list operators by time")
    chosen = options.parse_args()
    device, count = rounds.begin(chosen)
    names = chosen.network or (["ddlm_small"] if chosen.quick else list(NETWORKS))
    ways = {"as trained": Inference()}
    if chosen.int8:
        ways["int8"] = Inference(int8=True)
    if chosen.bf16:
        ways["bf16"] = Inference(dtype=torch.bfloat16, cuda_graphs=device.type == "cuda")
    measured = [measure(name, ways, device, count, chosen) for name in names]
    rounds.finish({"machine": rounds.machine(device, chosen.clock), "results": measured}, chosen)


def measure(
    name: str,
    ways: dict[str, Inference],
    device: torch.device,
    count: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """All figures of one network, printed as they come."""
    size, batch = NETWORKS[name], options.batch
    steps = {way: turns(size, choice, batch, device) for way, choice in ways.items()}
    first = steps["as trained"]
    products = record(first)
    flops = sum(n * product_flops(p) for p, n in products.items())
    cases: dict[str, rounds.Case] = {way: lambda s=s: next(s) for way, s in steps.items()}  # type: ignore[misc]
    cases["matmuls"] = alone(products, device)
    cases |= rounds.square_peak(device, torch.float32)
    seconds = rounds.summary(rounds.rounds(cases, count, device, options.clock))
    peak = rounds.peak_flops(seconds)
    report = {
        "network": name,
        **size,
        "batch": batch,
        "seconds": seconds,
        "products": sum(products.values()),
        "flops": flops,
        "share": rounds.ratio(seconds, "matmuls", "as trained"),
        "peak_flops": peak,
        "peak_share": {k: flops / seconds["as trained"][k] / peak[k] for k in peak},
        "speed_up": {way: rounds.ratio(seconds, "as trained", way) for way in ways},
    }
    show(report)
    if options.profile:
        operators(first)
    return report


def turns(
    size: dict[str, int], way: Inference, batch: int, device: torch.device
) -> Iterator[Snapshot]:
    """An endless run of a network of ``size`` at constant shape."""
    parts = a_model(size, way, device)
    requests = unconditional(batch, size["length"])
    return stream(
        parts, requests, seed=0, steps=100_000, batch_size=batch, length=size["length"],
        width=constant,
    )  # fmt: skip


def a_model(size: dict[str, int], way: Inference, device: torch.device) -> SamplingParts:
    registry = Registry.load(third_party=False)
    context = BuildContext(length=size["length"], vocab_size=size["vocab"], device=device)

    def build(kind: str, use: str, **options: Any) -> Any:
        return registry.build(kind, Part(use=use, options=options), context)

    torch.manual_seed(0)
    space = build("space", "normalised", dim=size["dim"], init_std=1.0).to(device)
    context = BuildContext(
        length=size["length"], vocab_size=size["vocab"], device=device, parts={"space": space}
    )
    options = {key: size[key] for key in ("width", "blocks", "heads")}
    network = build("network", "transformer", **options)
    nn.init.normal_(network.query.weight, std=0.02)
    return SamplingParts(
        space=space,
        schedule=build("schedule", "variance-exploding", density="log-uniform"),
        denoise=ModelDenoise(space.eval(), network.eval().to(device)),
        sampler=build("sampler", "euler"),
        grid=build("grid", "log-uniform"),
        exit=build("exit", "fixed", step=100_000),
        statistics={name: build("statistic", name) for name in ("entropy", "jeffreys")},
        inference=way,
    )


class Recorder(TorchDispatchMode):
    """The matrix products that pass, by their shapes and strides."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[PRODUCT] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self._add(*args[:2])
        elif name in ("addmm", "baddbmm"):
            self._add(*args[1:3])
        elif name.startswith("_scaled_dot_product"):
            query, keys, values = args[:3]
            scores = query.new_empty((*query.shape[:-1], keys.shape[-2]), device="meta")
            self._add(query, keys.transpose(-1, -2))
            self._add(scores, values)
        return func(*args, **(kwargs or {}))

    def _add(self, a: Tensor, b: Tensor) -> None:
        self.products[tuple(tuple(x) for t in (a, b) for x in (t.shape, t.stride()))] += 1


def record(steps: Iterator[Snapshot]) -> Counter[PRODUCT]:
    """The products of one step, after one that prepares the run."""
    next(steps)
    with Recorder() as seen:
        next(steps)
    products: Counter[PRODUCT] = seen.products
    return products


def product_flops(product: PRODUCT) -> int:
    (*rows, inner), _, shape, _ = product
    return int(2 * torch.Size(rows).numel() * inner * shape[-1])


def alone(products: Counter[PRODUCT], device: torch.device) -> Callable[[], None]:
    """A call that does ``products`` and nothing else."""
    ready = []
    for (left, left_strides, right, right_strides), count in products.items():
        a = torch.empty_strided(left, left_strides, device=device).normal_()
        b = torch.empty_strided(right, right_strides, device=device).normal_()
        out = torch.empty(*left[:-1], right[-1], device=device)
        ready.append((a, b, out, count))

    def run() -> None:
        for a, b, out, count in ready:
            for _ in range(count):
                torch.matmul(a, b, out=out)

    return torch.no_grad()(run)


def operators(steps: Iterator[Snapshot]) -> None:
    """Operators by their own time."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(3):
            next(steps)
    print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=22))


def show(report: dict[str, Any]) -> None:
    """One figure a line, by the minimum of the rounds and (by the median)."""
    print(
        f"{report['network']}: width {report['width']}, {report['blocks']} blocks, "
        f"V {report['vocab']}, L {report['length']}, batch {report['batch']}, "
        f"{report['flops'] / 1e9:.2f} GFLOP in {report['products']} products"
    )
    for name, times in report["seconds"].items():
        print(f"  {name:14s} {times['min'] * 1e3:9.2f} ms  ({times['median'] * 1e3:.2f})")
    for name in ("share", "peak_share"):
        print(f"  {name:14s} {report[name]['min']:9.3f}     ({report[name]['median']:.3f})")
    for way, times in report["speed_up"].items():
        if way != "as trained":
            print(f"  {way:14s} {times['min']:9.2f} times as fast ({times['median']:.2f})")


if __name__ == "__main__":
    main()
