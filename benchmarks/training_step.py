"""A training step's own matmuls, timed alone, against the whole step, data pipeline included.

    python benchmarks/training_step.py --out training_step.json
    python benchmarks/training_step.py --sizes 6M --threads 2 --rounds 20

Every matrix product of one step is recorded forwards and backwards, with its shapes and strides.
Then rounds alternate between real steps of the training loop, the same products with nothing
between them, and square products of n = 512, 1024 and 2048. An attention call counts as its
products: two forwards, five backwards (the kernel makes the scores again); `--attention kernel`
replays the kernel itself. Per model the JSON holds seconds of wall clock and of CPU time for each
round, the shares, the counted operations beside a formula's, the share of time spent waiting for
data, and what the rest of the step is, by torch's profiler.

Shares are medians over the rounds. On a busy machine read those of the CPU time, of one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from dlmkit.recipe.assemble import Assembly, assemble
from dlmkit.recipe.load import load_recipe
from dlmkit.recipe.schema import RecipeConfig
from dlmkit.registry.lookup import Registry
from dlmkit.training.loop import Learner, StepRecord, train
from dlmkit.training.memory import keep_freed
from dlmkit.training.parallel import Single
from dlmkit.training.units import prepare_units

SIZES = {
    "1.3M": {"blocks": 4, "width": 128, "heads": 2, "vocabulary": 1024},
    "6M": {"blocks": 6, "width": 256, "heads": 4, "vocabulary": 2048},
}
"""The shapes of the prototype, at d = 64, length 64 and 32 rows."""
SQUARES = (512, 1024, 2048)
WARM_UP = 3

aten = torch.ops.aten
_ATTENTION = aten._scaled_dot_product_flash_attention_for_cpu.default
_ATTENTION_BACKWARD = aten._scaled_dot_product_flash_attention_for_cpu_backward.default


@dataclass(frozen=True)
class Layout:
    """Shape and strides of one operand."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @staticmethod
    def of(tensor: Tensor) -> Layout:
        return Layout(tuple(tensor.shape), tensor.stride())

    def make(self) -> Tensor:
        """Random numbers laid out like that."""
        return torch.empty_strided(self.shape, self.stride).copy_(torch.randn(self.shape))


@dataclass(frozen=True)
class Product:
    """One call: a matrix product, or an attention kernel with what it multiplies."""

    name: str
    operands: tuple[Layout, ...]

    @property
    def flops(self) -> int:
        """Operations, a multiplication and an addition each counting as one."""
        a, b = self.operands[0].shape, self.operands[1].shape
        if self.name.startswith("attention"):
            products = 5 if self.name == "attention backward" else 2
            return products * 2 * math.prod(a) * b[-2]
        return 2 * math.prod(a) * b[-1]


class Recorder(TorchDispatchMode):
    """Notes every product that runs inside it, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        operands = OPERANDS.get(func)
        if operands is not None:
            name, places = operands
            self.products.append(Product(name, tuple(Layout.of(args[i]) for i in places)))
        return func(*args, **(kwargs or {}))


OPERANDS: Mapping[Any, tuple[str, tuple[int, ...]]] = {
    aten.mm.default: ("mm", (0, 1)),
    aten.addmm.default: ("mm", (1, 2)),
    aten.bmm.default: ("bmm", (0, 1)),
    aten.baddbmm.default: ("bmm", (1, 2)),
    _ATTENTION: ("attention", (0, 1, 2)),
    _ATTENTION_BACKWARD: ("attention backward", (1, 2, 3)),
}
"""What is recorded, and which arguments are the operands. Addends are left out: bare products."""


def bare(product: Product, kernel: bool) -> list[Callable[[], Any]]:
    """Calls that make the products of ``product`` and nothing else."""
    if not product.name.startswith("attention"):
        a, b = (layout.make() for layout in product.operands)
        out = torch.empty(*a.shape[:-1], b.shape[-1])
        return [lambda: torch.matmul(a, b, out=out)]
    q, k, v = (layout.make() for layout in product.operands)
    if kernel:
        return [attention_kernel(product.name, q, k, v)]
    scores = torch.randn(*q.shape[:-1], k.shape[-2])
    out, square = torch.empty(q.shape), torch.empty(scores.shape)
    calls = [
        lambda: torch.matmul(q, k.transpose(-1, -2), out=square),
        lambda: torch.matmul(scores, v, out=out),
    ]
    if product.name == "attention":
        return calls
    return [  # the scores again, then the gradients of v, of the weights, of q and of k
        calls[0],
        lambda: torch.matmul(scores.transpose(-1, -2), v, out=out),
        calls[0],
        calls[1],
        lambda: torch.matmul(scores.transpose(-1, -2), q, out=out),
    ]


def attention_kernel(name: str, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Any]:
    """The kernel that the step really runs."""
    attend = torch.zeros(q.shape[0], 1, 1, k.shape[-2])
    if name == "attention":
        return lambda: _ATTENTION(q, k, v, attn_mask=attend)
    out, lse = _ATTENTION(q, k, v, attn_mask=attend)
    gradient = torch.randn_like(out)
    return lambda: _ATTENTION_BACKWARD(gradient, q, k, v, out, lse, 0.0, False, attn_mask=attend)


@dataclass(frozen=True)
class Clock:
    """Seconds of wall clock and of CPU time of all threads."""

    wall: float
    cpu: float

    @staticmethod
    def of(call: Callable[[], Any]) -> Clock:
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        return Clock(time.perf_counter() - wall, time.process_time() - cpu)


def formula(config: RecipeConfig, vocabulary: int) -> int:
    """Operations of one step, from the recipe alone: 2 for each weight and position forwards,
    twice that backwards, and forwards once more for the rows of the self-conditioning pass."""
    network, space = config.network.options, config.space.options
    width, blocks, d = network["width"], network["blocks"], space["dim"]
    features, length, rows = network["time_features"], config.length, config.train.batch_size
    block = 4 * width * width + 2 * network["feed_forward"] * width * width
    position = (3 * d + 1) * width + blocks * block + width * d + vocabulary * d
    row = 2 * features * features + (2 * blocks + 1) * features * 2 * width
    attention = 2 * length * length * width * blocks
    first: int = math.ceil(config.objective.options["self_conditioning"] * rows)
    read = vocabulary * d  # the first pass turns logits into an embedding
    once = 2 * (position * length + row + attention)
    again = first * (once + 2 * read * length)
    inputs = 2 * rows * features * features  # of the noise level, which need no gradient
    # attention backwards: 5 products, not 4
    flops: int = rows * (3 * once + attention) + again - inputs
    return flops


def measure(name: str, options: argparse.Namespace, registry: Registry) -> dict[str, Any]:
    """All numbers of one size."""
    assembly = assemble(config_of(name, options.compile, registry), registry)
    steps = loop(assembly)
    for _ in range(WARM_UP):
        next(steps)
    with Recorder() as recorder:
        next(steps)
    if options.compile:
        prepare_units(assembly.network, assembly.config.train, torch.device("cpu"))
    calls = [c for p in recorder.products for c in bare(p, options.attention == "kernel")]
    timed = Rounds(steps, calls, options.steps, squares())
    timed.run(options.rounds)
    flops = sum(product.flops for product in recorder.products)
    config, parameters = assembly.config, assembly.objective.parameters()
    return {
        "parameters": sum(p.numel() for p in parameters),
        "products_per_step": len(recorder.products),
        "flops_per_step": flops,
        "flops_by_formula": formula(config, assembly.tokenizer.vocab_size),
        "tokens_per_step": config.train.batch_size * config.length,
        **{clock: timed.shares(clock, flops) for clock in ("wall", "cpu")},
        "waiting_for_data": sum(r.data_seconds for r in timed.records)
        / sum(r.seconds for r in timed.records),
        "rounds": timed.raw(),
        "profile": profiled(steps, options.steps),
    }


def config_of(name: str, compiled: bool, registry: Registry) -> RecipeConfig:
    """The recipe of one size: ddlm_small's text and parts at other sizes."""
    size = SIZES[name]
    network = {f"network.with.{key}": size[key] for key in ("blocks", "width", "heads")}
    options = {
        **network,
        "length": 64,
        "data.with.tokenizer.size": size["vocabulary"],
        "space.with.dim": 64,
        "train.batch_size": 32,
        "train.steps": 1_000_000,
        "train.compile": compiled,
    }
    recipe = Path(__file__).resolve().parent.parent / "recipes" / "ddlm_small.yaml"
    return load_recipe(str(recipe), [f"{k}={v}" for k, v in options.items()], registry).config


def loop(assembly: Assembly) -> Iterator[StepRecord]:
    """The training loop, from the start."""
    config, world = assembly.config, Single(torch.device("cpu"))
    assert assembly.data is not None
    stream = assembly.data.stream(config.seed, config.train.batch_size)
    learner = Learner.begin(assembly.objective, config.train, world)
    return train(learner, stream, config.train, config.seed, world)


def squares() -> dict[int, Callable[[], Any]]:
    """One product of each size of :data:`SQUARES`."""

    def call(n: int) -> Callable[[], Any]:
        a, b, out = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)
        return lambda: torch.mm(a, b, out=out)

    return {n: call(n) for n in SQUARES}


class Rounds:
    """Interleaved timings: steps of the loop, their bare products, and square products."""

    def __init__(
        self,
        steps: Iterator[StepRecord],
        calls: Sequence[Callable[[], Any]],
        count: int,
        squares: Mapping[int, Callable[[], Any]],
    ) -> None:
        self.steps, self.calls, self.count, self.squares = steps, calls, count, squares
        self.records: list[StepRecord] = []
        self.step: list[Clock] = []
        self.products: list[Clock] = []
        self.square: dict[int, list[Clock]] = {n: [] for n in squares}

    def run(self, rounds: int) -> None:
        """One round more than ``rounds``, of which the first warms up and is forgotten."""
        for number in range(rounds + 1):
            kept = number > 0
            step = Clock.of(self._steps)
            products = Clock.of(self._products)
            square = {n: Clock.of(call) for n, call in self.squares.items()}
            if kept:
                self.step.append(step)
                self.products.append(products)
                for n, clock in square.items():
                    self.square[n].append(clock)
            else:
                self.records.clear()

    def _steps(self) -> None:
        self.records += [next(self.steps) for _ in range(self.count)]

    def _products(self) -> None:
        for _ in range(self.count):
            for call in self.calls:
                call()

    def shares(self, clock: str, flops: int) -> dict[str, float]:
        """Medians over the rounds, by one of the two clocks."""
        step = [getattr(c, clock) / self.count for c in self.step]
        products = [getattr(c, clock) / self.count for c in self.products]
        fastest = {n: 2 * n**3 / min(getattr(c, clock) for c in v) for n, v in self.square.items()}
        median = statistics.median(step)
        best = max(fastest.values())
        return {
            "step_seconds": median,
            "products_seconds": statistics.median(products),
            "products_share": statistics.median(p / s for p, s in zip(products, step, strict=True)),
            "gigaflops": flops / median / 1e9,
            "share_of_best_square": flops / median / best,
            **{f"square_{n}_gigaflops": f / 1e9 for n, f in fastest.items()},
        }

    def raw(self) -> dict[str, Any]:
        """Every timing."""
        square = {str(n): [asdict(c) for c in clocks] for n, clocks in self.square.items()}
        return {
            "step": [asdict(c) for c in self.step],
            "products": [asdict(c) for c in self.products],
            "steps_per_round": self.count,
            "square": square,
        }


PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::_scaled_dot_product")


def profiled(steps: Iterator[StepRecord], count: int) -> dict[str, Any]:
    """Shares of the time in torch's own kernels: products, and the largest others by name."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(count):
            next(steps)
    times: Counter[str] = Counter()
    for event in profiler.key_averages():
        product = event.key.startswith(PRODUCTS)
        times["products" if product else event.key] += event.self_cpu_time_total
    total = times.total()
    return {name: round(value / total, 4) for name, value in times.most_common(25)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--rounds", type=int, default=10)
    made.add_argument("--steps", type=int, default=3, help="steps in a round")
    made.add_argument("--attention", choices=("products", "kernel"), default="products")
    made.add_argument("--compile", action="store_true", help="torch.compile the blocks")
    made.add_argument("--out", type=Path, help="JSON file")
    options = made.parse_args(arguments)
    torch.set_num_threads(options.threads)
    keep_freed()
    registry = Registry.load()
    measured = {name: measure(name, options, registry) for name in options.sizes}
    machine = {"torch": torch.__version__, "cpu": platform.processor(), "threads": options.threads}
    if options.out is not None:
        options.out.write_text(
            json.dumps({"machine": machine, "models": measured}, indent=1) + "\n"
        )
    print("\n\n".join(report(name, numbers) for name, numbers in measured.items()))
    return 0


def report(name: str, measured: Mapping[str, Any]) -> str:
    """The numbers of one size in words."""
    lines = [
        f"{name}: {measured['parameters']:,} parameters, "
        f"{measured['flops_per_step'] / 1e9:.1f} GFLOP a step"
    ]
    for clock in ("wall", "cpu"):
        n = measured[clock]
        lines.append(
            f"  {clock}: step {n['step_seconds'] * 1e3:.1f} ms, products alone "
            f"{n['products_seconds'] * 1e3:.1f} ms: {n['products_share']:.1%}; "
            f"{n['gigaflops']:.1f} GFLOP/s, {n['share_of_best_square']:.1%} of the best square"
        )
    lines.append(f"  waiting for data {measured['waiting_for_data']:.2%}")
    rest = ", ".join(f"{key} {share:.1%}" for key, share in list(measured["profile"].items())[:12])
    return "\n".join([*lines, f"  profile: {rest}"])


if __name__ == "__main__":
    sys.exit(main())
