"""The vocabulary step: the mean of x0 under softmax(q K^T), as attention over the tokens.

Keys score the tokens and values are their embeddings, so the mean is one attention read-out at
scale 1 and the log-normaliser its log-sum-exp. A fused kernel and the online form hold no tensor
of the vocabulary's size; the plain form does, and is what gradients flow through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlmkit.errors import describe
from dlmkit.kernels.attention import PARITY

Queries = Float[Tensor, "M Q"]
Mean = Float[Tensor, "M D"]
LogSum = Float[Tensor, "M"]

CHUNK = {"cpu": (256, 512)}
"""(queries, tokens) of a block of logits, small enough for the second-level cache of a core."""
WIDE_CHUNK = (1 << 14, 4096)
"""The same on accelerators, where a launch costs more than a miss."""


class Tables(NamedTuple):
    """A linear read-out: logits(q) = q . keys_v, finite and free of bias; x0 = sum p_v values_v."""

    keys: Float[Tensor, "V Q"]
    values: Float[Tensor, "V D"]

    def to(self, dtype: torch.dtype) -> Tables:
        """Both in ``dtype``, still one tensor if they were one."""
        keys = self.keys.to(dtype)
        return Tables(keys, keys if self.values is self.keys else self.values.to(dtype))


class Top(NamedTuple):
    """The likeliest token, its logit and that of the runner-up, row-first."""

    ids: Int[Tensor, "*shape"]
    first: Float[Tensor, "*shape"]
    second: Float[Tensor, "*shape"]


Form = Callable[[Queries, Tables], tuple[Mean, LogSum]]


def plain(query: Queries, tables: Tables) -> tuple[Mean, LogSum]:
    """All logits at once: the reference, and differentiable."""
    logits = query @ tables.keys.T
    return logits.softmax(dim=-1) @ tables.values, logits.logsumexp(dim=-1)


def online(query: Queries, tables: Tables) -> tuple[Mean, LogSum]:
    """A block of logits at a time under a running maximum (1805.02867, algorithm 3).

    Sums in at least single precision.
    """
    rows, tokens = CHUNK.get(query.device.type, WIDE_CHUNK)
    parts = [_online(block, tables, tokens) for block in query.split(rows)]
    means, sums = zip(*parts, strict=True)
    return (means[0], sums[0]) if len(parts) == 1 else (torch.cat(means), torch.cat(sums))


def _online(query: Queries, tables: Tables, tokens: int) -> tuple[Mean, LogSum]:
    wide = torch.promote_types(query.dtype, torch.float32)
    top = query.new_full((len(query), 1), -torch.inf, dtype=wide)
    total = torch.zeros_like(top)
    mean = query.new_zeros(len(query), tables.values.shape[1], dtype=wide)
    buffer = query.new_empty(len(query), tokens)
    for keys, values in zip(tables.keys.split(tokens), tables.values.split(tokens), strict=True):
        logits = torch.mm(query, keys.T, out=buffer[:, : len(keys)]).to(wide)
        higher = torch.maximum(top, logits.amax(dim=1, keepdim=True))
        weights = logits.sub_(higher).exp_()
        shrink = (top - higher).exp_()
        total.mul_(shrink).add_(weights.sum(dim=1, keepdim=True))
        mean.mul_(shrink)
        if values.dtype == wide:
            mean.addmm_(weights, values)
        else:
            mean.add_(weights.to(values.dtype) @ values)
        top = higher
    return mean.div_(total), total.log_().add_(top)[:, 0]


def flash_cpu(query: Queries, tables: Tables) -> tuple[Mean, LogSum]:
    """torch's own flash attention for the CPU."""
    mean, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *_heads(query, tables), 0.0, False, scale=1.0
    )
    return _wide(mean.view(len(query), -1), lse)


def flash_cuda(query: Queries, tables: Tables) -> tuple[Mean, LogSum]:
    """Flash attention 2: half precision, at most 256 channels."""
    mean, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
        *_heads(query, tables), 0.0, False, False, scale=1.0
    )
    return _wide(mean.view(len(query), -1), lse)


def efficient_cuda(query: Queries, tables: Tables) -> tuple[Mean, LogSum]:
    """Memory-efficient attention: single precision too. It pads the log-sum-exp."""
    mean, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        *_heads(query, tables), None, True, 0.0, False, scale=1.0
    )
    return _wide(mean.view(len(query), -1), lse[..., : len(query)])


def _heads(query: Queries, tables: Tables) -> tuple[Tensor, Tensor, Tensor]:
    """One row of one head: every query of the batch attends to the same tokens."""
    return query[None, None], tables.keys[None, None], tables.values[None, None]


def _wide(mean: Tensor, lse: Tensor) -> tuple[Mean, LogSum]:
    wide = torch.promote_types(mean.dtype, torch.float32)
    return mean.to(wide), lse.reshape(-1).to(wide)


FORMS: Mapping[str, Form] = {
    "flash-cpu": flash_cpu,
    "flash-cuda": flash_cuda,
    "efficient-cuda": efficient_cuda,
    "online": online,
    "plain": plain,
}
FUSED: Mapping[str, tuple[str, ...]] = {
    "cpu": ("flash-cpu",),
    "cuda": ("flash-cuda", "efficient-cuda"),
}
"""The fused kernels of a device type, best first; :func:`online` runs anywhere."""
FUSED_CHANNELS = 256
"""The most channels of a head that flash attention takes."""


@dataclass(frozen=True)
class Kernel:
    """The form that a run uses, by its name in :data:`FORMS`, and why better ones cannot run."""

    name: str
    refused: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, query: Queries, tables: Tables) -> tuple[Mean, LogSum]:
        return FORMS[self.name](query, tables)

    def __str__(self) -> str:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in self.refused.items())
        return f"{self.name} ({reasons})" if reasons else self.name


def choose(tables: Tables) -> Kernel:
    """The best form for ``tables``, found by calling it once on their device, dtype and shape."""
    keys, values = tables
    fused = tuple((name, FORMS[name]) for name in FUSED.get(keys.device.type, ()))
    return _chosen(fused, keys.device, keys.dtype, keys.shape, values.shape)


@lru_cache
def _chosen(
    fused: tuple[tuple[str, Form], ...],
    device: torch.device,
    dtype: torch.dtype,
    keys: torch.Size,
    values: torch.Size,
) -> Kernel:
    refused: dict[str, str] = {}
    for name, form in fused:
        if keys != values:
            refused[name] = f"{keys[1]} channels are scored and {values[1]} averaged"
        elif keys[1] > FUSED_CHANNELS:
            refused[name] = f"{keys[1]} channels, at most {FUSED_CHANNELS}"
        else:
            try:
                _probe(form, device, dtype, keys)
            except Exception as error:
                refused[name] = describe(error)
            else:
                return Kernel(name, refused)
    return Kernel("online", refused)


@torch.no_grad()
def _probe(form: Form, device: torch.device, dtype: torch.dtype, shape: torch.Size) -> None:
    """Call ``form``; raises what it raises, or RuntimeError if it differs from the online form."""
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(shape, generator=generator).to(device, dtype)
    query = torch.randn(48, shape[1], generator=generator).to(device, dtype) / shape[1] ** 0.5
    tables = Tables(keys, keys)
    pairs = zip(form(query, tables), online(query, tables), strict=True)
    worst = max((actual - expected).abs().max().item() for actual, expected in pairs)
    if not worst <= PARITY[dtype]:
        raise RuntimeError(f"it differs from the plain form by {worst:.3g}")


def top(query: Queries, keys: Float[Tensor, "V Q"]) -> Top:
    """The two likeliest tokens of every query, a block of logits at a time.

    Of equally likely tokens the first wins, as in an argmax over all logits.
    """
    rows, tokens = CHUNK.get(query.device.type, WIDE_CHUNK)
    parts = [_top(block, keys, tokens) for block in query.split(rows)]
    return Top(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _top(query: Queries, keys: Float[Tensor, "V Q"], tokens: int) -> Top:
    best = Top(
        query.new_zeros(len(query), dtype=torch.int64),
        query.new_full((len(query),), -torch.inf),
        query.new_full((len(query),), -torch.inf),
    )
    buffer = query.new_empty(len(query), tokens)
    for start, block in zip(range(0, len(keys), tokens), keys.split(tokens), strict=True):
        here = top_of(torch.mm(query, block.T, out=buffer[:, : len(block)]))
        wins = here.first > best.first
        loser = torch.where(wins, best.first, here.first)
        best = Top(
            torch.where(wins, here.ids + start, best.ids),
            torch.where(wins, here.first, best.first),
            torch.maximum(loser, torch.where(wins, here.second, best.second)),
        )
    return best


def top_of(logits: Float[Tensor, "*shape V"]) -> Top:
    """The two likeliest tokens of ``logits``, which it may overwrite."""
    first, ids = logits.max(dim=-1)
    second = logits.scatter_(-1, ids[..., None], -torch.inf).amax(dim=-1)
    return Top(ids, first, second)


class Certainty(NamedTuple):
    """How sure a distribution over tokens is, row-first: the likeliest token, its log-probability
    and the runner-up's, and the entropy in nats."""

    ids: Int[Tensor, "*shape"]
    first: Float[Tensor, "*shape"]
    second: Float[Tensor, "*shape"]
    entropy: Float[Tensor, "*shape"]


def certainty(logits: Float[Tensor, "M V"]) -> Certainty:
    """The certainty of every row of ``logits``, in single precision at least.

    The likeliest token is taken out of the sums: log p is -log(1 + r), where r is the weight of
    all others beside it, and tells 1 - 1e-9 from 1 - 1e-12, which p itself does not. A position
    of which the model is nearly certain keeps its place in an order.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    none = torch.finfo(wide).min / 4  # impossible, and still a number to subtract from
    logits = logits.to(wide).clamp(min=none)
    highest, ids = logits.max(dim=-1)
    logits.scatter_(-1, ids[:, None], none)
    # softmax's own exp is ten times as fast as torch.exp on logits that are far below
    others = logits.softmax(dim=-1)
    second = logits.amax(dim=-1, keepdim=True)
    log_sum = -others.amax(dim=-1).log()
    # the sum of -p log p from the logits at hand: entr takes as long as all the rest together
    within = log_sum - torch.linalg.vecdot(others, logits.sub_(second))
    second = second[:, 0]
    log_rest = second + log_sum - highest
    first = -torch.nn.functional.softplus(log_rest)
    rest = (first + log_rest).exp()
    entropy = -first * first.exp() + rest * (within - first - log_rest)
    return Certainty(ids, first, second - highest + first, entropy)
