"""Plaid 1B (2305.18619): its points, its transformer and its bound, beside plaid's own schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dlmkit import documents
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import OutputPrior
from dlmkit.core.embedding import EmbeddingSpace, GaussianCorruption
from dlmkit.core.importer import Case, Conversion, Family, Place, Slot, Split
from dlmkit.core.layers import rotate, rotation_at
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.objective import Objective
from dlmkit.core.schedule import Level
from dlmkit.errors import RecipeError
from dlmkit.plugin import Depth, Size
from dlmkit.types import Embedded, Ids, Logits, Probabilities, Query
from dlmkit_plaid.objective import LikelihoodBound
from dlmkit_plaid.schedule import Monotone
from dlmkit_released import configs
from dlmkit_released.attention import attended, block_causal, rotary_rates

BASE_WIDTH = 256
"""Width at which the head's input is not scaled (muP, 2203.03466)."""
FREQUENCIES = 32
ROTARY_BASE = 10000.0


class PointCorruption(GaussianCorruption):
    """Gaussian noise on points of norm 1, of which a channel has the variance 1 / D."""

    def input(self, x: Tensor, level: Level) -> Embedded:
        alpha, sigma = level
        return x * _by_row(torch.rsqrt(alpha * alpha / x.shape[-1] + sigma * sigma), x)


def _by_row(values: Tensor, x: Tensor) -> Tensor:
    """Factors of ``x``, one of each row, rounded to its precision only here."""
    return values.view(-1, *(1,) * (x.ndim - 1)).to(x.dtype)


class PointSpace(EmbeddingSpace):
    """Trained points of norm 1; the network puts out the logits."""

    def __init__(self, config: configs.Points, context: BuildContext) -> None:
        super().__init__()
        self.vocab_size = self.query_dim = context.rows(config.size)
        self.dim = config.dim
        self.matrix = nn.Parameter(torch.empty(self.vocab_size, self.dim))
        nn.init.normal_(self.matrix)
        self.corruption = PointCorruption()

    def points(self) -> Tensor:
        """x0 of every token, (V, D)."""
        points: Tensor = self.matrix / (self.matrix.norm(dim=1, keepdim=True) + 1e-8)
        return points

    def embed(self, ids: Ids) -> Tensor:
        return F.embedding(ids, self.points())

    def logits(self, query: Query) -> Logits:
        return query

    def expect(self, probabilities: Probabilities) -> Tensor:
        return probabilities @ self.points().to(probabilities.dtype)


class LogitPrior(OutputPrior):
    """Plaid's output prior, on logits: what the noisy point says of every token."""

    space: PointSpace

    def query(self, x: Tensor, level: Level, previous: Tensor, conditioning: Conditioning) -> Query:
        logits = super(OutputPrior, self).query(x, level, previous, conditioning).to(x.dtype)
        certain = _by_row(level.alpha / level.sigma.square(), x) * x
        return logits + self.strength * (certain @ self.space.points().to(x.dtype).T)


class PointBound(LikelihoodBound):
    """Plaid's bound, where the network puts out logits."""

    space: PointSpace

    def denoise(self, strength: float | Tensor = 1.0) -> LogitPrior:
        feedback = self.config.self_conditioning > 0
        return LogitPrior(self.space, self.network, feedback, strength)


class PlaidBlock(nn.Module):
    """Self-attention and feed-forward, each behind a norm; what they add is scaled down."""

    def __init__(self, width: int, heads: int, scale: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.rmsnorm1, self.rmsnorm2 = nn.RMSNorm(width, 1e-5), nn.RMSNorm(width, 1e-5)
        self.attn_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.mlp = nn.ModuleDict(
            {
                "fc1": nn.Linear(width, 4 * width, bias=False),
                "fc2": nn.Linear(4 * width, width, bias=False),
            }
        )

    def forward(self, h: Tensor, rotation: Tensor, seen: Tensor | None) -> Tensor:
        qkv = self.attn_qkv(self.rmsnorm1(h)).view(*h.shape[:2], 3, self.heads, -1)
        q, k, v = qkv.unbind(dim=2)
        mixed = attended(rotate(q, rotation), rotate(k, rotation), v, seen)
        h = h + self.scale * self.attn_out(mixed)
        inner = F.gelu(self.mlp["fc1"](self.rmsnorm2(h)), approximate="tanh")
        out: Tensor = h + self.scale * self.mlp["fc2"](inner)
        return out


class PlaidTransformer(ScoreNetwork):
    """The noisy points, the level and the previous prediction go in at the bottom, added up.

    It was not trained to see known tokens; at given positions it reads their points without noise.
    """

    rotation: Tensor

    def __init__(self, config: configs.PlaidNetwork, context: BuildContext) -> None:
        super().__init__()
        space = context.part("space")
        if context.attention not in ("auto", "sdpa"):
            raise RecipeError(f"network: released:plaid has no attention {context.attention!r}")
        width, heads = config.width, config.heads
        self.channels, self.readout = space.dim, BASE_WIDTH / width
        self.corruption = space.corruption
        self.input_linear = nn.Linear(space.dim, width, bias=False)
        self.selfcond_linear = nn.Linear(space.dim, width, bias=False)
        self.gamma_linear = nn.Linear(2 * FREQUENCIES, width, bias=False)
        scale = 1.0 / math.sqrt(config.blocks)
        self.blocks = nn.ModuleList(PlaidBlock(width, heads, scale) for _ in range(config.blocks))
        self.output_norm = nn.LayerNorm(width, bias=False)
        self.output_linear = nn.Linear(width, space.query_dim)
        rotation = rotation_at(context.length, rotary_rates(width // heads, ROTARY_BASE))
        self.register_buffer("rotation", rotation, persistent=False)

    def forward(
        self, x: Embedded, level: Level, conditioning: Conditioning, previous: Tensor
    ) -> Query:
        given, clean = conditioning.given[..., None], conditioning.clean.to(x.dtype)
        known = self.corruption.input(_by_row(level.alpha, clean) * clean, level)
        previous = torch.where(given, clean, previous.to(x.dtype))
        h = self.input_linear(torch.where(given, known, x))
        h = h + self.selfcond_linear(previous * math.sqrt(self.channels)) + self._level(level)
        seen = block_causal(conditioning.attend, h.shape[1], None, h.device)
        for block in self.blocks:
            h = block(h, self.rotation, seen)
        query: Tensor = self.output_linear(self.readout * self.output_norm(h))
        return query

    def _level(self, level: Level) -> Tensor:
        """Sines and cosines of gamma, up to 148 times as fast: in double precision."""
        gamma = 2.0 * Level(level.alpha.double(), level.sigma.double()).ratio.log()
        rates = torch.linspace(-5.0, 5.0, FREQUENCIES, dtype=gamma.dtype, device=gamma.device).exp()
        angles = gamma[:, None, None] * rates
        features = torch.cat((angles.sin(), angles.cos()), dim=-1)
        out: Tensor = self.gamma_linear(features.to(self.gamma_linear.weight.dtype))
        return out

    def shard_units(self) -> Sequence[nn.Module]:
        return list(self.blocks)


class PlaidKeys(documents.Shape):
    """The arguments that it was trained with; no config was released."""

    seq_len: Size
    vocab_size: Size
    dim: Size
    embed_dim: Size
    n_blocks: Depth
    n_heads: Size
    gamma_0: float = Field(allow_inf_nan=False)
    gamma_1: float = Field(allow_inf_nan=False)


_PARTS = ("rmsnorm1", "rmsnorm2", "attn_qkv", "attn_out", "mlp.fc1", "mlp.fc2")
_ENDS = ("input_linear", "selfcond_linear", "gamma_linear", "output_norm", "output_linear")
FILES = {f"{name}.pt": f"{name}." for name in ("model", "noise_schedule", "gamma_bounds")} | {
    "embedding_matrix.pt": "embedding_matrix."
}


class Plaid(Family):
    """Four state dicts, which lie in four files or, with their names in front, in one."""

    # logits reach 50, and the reference's own are 1.4e-5 from those of double precision
    tolerance = 5e-5

    def convert(self, config: Mapping[str, Any], tokens: Mapping[str, int]) -> Conversion:
        keys = documents.shaped(dict(config), PlaidKeys)
        if keys.dim % (2 * keys.n_heads):
            raise ValueError(f"n_heads: {keys.n_heads} heads do not divide {keys.dim} channels")
        if keys.gamma_0 >= keys.gamma_1:
            raise ValueError(f"gamma_0: {keys.gamma_0}, expected less than gamma_1, {keys.gamma_1}")
        units = 1024
        recipe = {
            "length": keys.seq_len,
            "schedule": {
                "use": "plaid:monotone",
                "with": {"gamma_min": keys.gamma_0, "gamma_max": keys.gamma_1, "units": units},
            },
            "space": {
                "use": "released:points",
                "with": {"dim": keys.embed_dim, "size": keys.vocab_size},
            },
            "network": {
                "use": "released:plaid",
                "with": {"width": keys.dim, "blocks": keys.n_blocks, "heads": keys.n_heads},
            },
            "objective": {"use": "released:plaid-bound"},
            "sampler": {"use": "samplers:ancestral"},
            "sample": {"steps": 256, "batch_size": 4},
        }
        tensors: dict[str, Place | Split] = {
            "embedding_matrix.matrix": "space.matrix",
            "gamma_bounds.gamma_0": Slot("schedule.ends", 0),
            "gamma_bounds.gamma_1": Slot("schedule.ends", 1),
            "noise_schedule.W1": Split(("schedule.inner",), _halved),
            "noise_schedule.b1": "schedule.bias",
            "noise_schedule.W2": Split(("schedule.outer",), lambda row: [row.flatten()]),
            "model.output_linear.bias": "network.output_linear.bias",
        }
        names = [f"{name}.weight" for name in _ENDS]
        names += [f"blocks.{n}.{part}.weight" for n in range(keys.n_blocks) for part in _PARTS]
        tensors |= {f"model.{name}": f"network.{name}" for name in names}
        rates = rotary_rates(keys.dim // keys.n_heads, ROTARY_BASE)
        computed = {"model.rotary_emb.inv_freq": rates}
        return Conversion(recipe, tensors, keys.vocab_size, None, computed=computed, instead=FILES)

    def answers(self, objective: Objective, case: Case) -> Mapping[str, Tensor]:
        schedule, space = objective.schedule, objective.space
        assert isinstance(schedule, Monotone)
        with torch.no_grad():
            if "t" in case.inputs:
                low, high = schedule.ends.double()
                return {"gamma": low + (high - low) * schedule.shape(case.inputs["t"])[0]}
            z, previous = case.inputs["z"], case.inputs["x_selfcond"]
            everywhere = torch.ones(z.shape[:2], dtype=torch.bool, device=z.device)
            conditioning = Conditioning.of(torch.zeros_like(z), ~everywhere, everywhere)
            denoise = objective.denoise()
            assert isinstance(denoise, OutputPrior)
            level = Level.preserving(case.inputs["gamma"].double())
            logits = denoise.query(z, level, previous, conditioning)
            return {"logits": logits, "x_reconst": space.expect(logits.softmax(dim=-1))}


def _halved(column: Tensor) -> tuple[Tensor]:
    """Weights of t - 1/2, as those of 2 t - 1, before their softplus."""
    half = 0.5 * F.softplus(column.flatten().double())
    # not in less than single precision, which would move gamma by 1e-4
    return (half.expm1().log().to(torch.promote_types(column.dtype, torch.float32)),)
