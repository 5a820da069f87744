"""Likelihood of texts under a Gaussian diffusion model: a variational bound, and the flow's.

Everything runs in x / alpha at the noise-to-signal ratio s = sigma / alpha, where the process is
x = x0 + s * noise. Padding has no part in it. Both are in nats, and both need log p(w | x) at the
smallest noise, because text is discrete.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from dlmkit import devices
from dlmkit.core.denoise import Denoise, Prediction
from dlmkit.core.embedding import EmbeddingSpace, GaussianCorruption
from dlmkit.core.network import Conditioning
from dlmkit.core.objective import Batch
from dlmkit.core.schedule import Level, NoiseSchedule
from dlmkit.errors import UsageError
from dlmkit.noise import Noise
from dlmkit.plugin import Config, Size
from dlmkit.rows import take
from dlmkit.types import Embedded, Ids, Index, Mask, PerRow

TIMES, CORRUPTION, DEQUANTISE, PROBE = range(0x11CE, 0x11D2)
"""Domains of the noise: none shares a number with another or with sampling."""

Previous = Literal["zero", "unrolled"]
Function = Callable[[Tensor], Tensor]


class MonteCarloBound(Config):
    """The variational bound by Monte Carlo."""

    rows: Size = Field(64, description="held-out rows")
    draws: Size = Field(16, ge=2, multiple_of=2, description="noise levels of a row, stratified")
    previous: Previous = Field(
        "unrolled", description="the previous prediction: zero, or a first pass's at the same x"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="of noise and levels")
    batch_size: Size = Field(32, description="rows side by side")


class Flow(Config):
    """The probability-flow ODE with Hutchinson's estimator."""

    rows: Size = Field(64, description="held-out rows")
    steps: Size = Field(64, ge=2, description="steps of Heun's method: two evaluations each")
    draws: Size = Field(1, description="draws of dequantising noise and probe of a row")
    previous: Previous = Field(
        "unrolled", description="the previous prediction: zero, or a first pass's at the same x"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="of noise and probes")
    batch_size: Size = Field(32, description="rows side by side")


@dataclass(frozen=True)
class Nats:
    """Of each row: what its prior, the noise levels between, and its reconstruction cost."""

    prior: PerRow
    integral: PerRow
    reconstruction: PerRow
    tokens: Index

    @property
    def total(self) -> PerRow:
        """The negative log-likelihood of each row, or its bound."""
        return self.prior + self.integral + self.reconstruction


@dataclass(frozen=True)
class GaussianModel:
    """The model: a denoiser in its space, over the levels of a schedule."""

    denoise: Denoise
    space: EmbeddingSpace
    schedule: NoiseSchedule

    def __post_init__(self) -> None:
        if not isinstance(self.space.corruption, GaussianCorruption):
            raise UsageError(
                "likelihood: the bound and the flow are of Gaussian corruption, and this space has "
                f"{type(self.space.corruption).__name__}; 'dlmkit perplexity' bounds masked models"
            )

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest noise-to-signal ratio."""
        place = devices.of(self.schedule, self.space)
        times = (self.schedule.t_min, self.schedule.t_max)
        t = torch.tensor(times, dtype=torch.float64, device=place)
        low, high = self.schedule.level(t).ratio.tolist()
        return low, high

    def predict(
        self, x: Embedded, s: Tensor, conditioning: Conditioning, previous: Previous
    ) -> Prediction:
        """The prediction at ``x`` of ratio ``s``, (B,), as a function of these two alone."""
        t = self.schedule.inverse(s)
        level = Level(*(value.to(x.dtype) for value in self.schedule.level(t)))
        noisy = x * level.like(x).alpha
        first = self.denoise(noisy, level, self.denoise.start(noisy), conditioning)
        if previous == "zero":
            return first
        return self.denoise(noisy, level, first.feedback, conditioning)

    def reconstruction(self, prediction: Prediction, batch: Batch) -> PerRow:
        """-log p(w | x), each position by itself."""
        logs = self.space.logits(prediction.query).double().log_softmax(dim=-1)
        nats = -logs.gather(-1, batch.ids[..., None])[..., 0]
        return torch.where(batch.attend, nats, 0.0).sum(dim=1)


def bound(subject: GaussianModel, batch: Batch, options: MonteCarloBound) -> Nats:
    """The variational bound of CDCD's process (Kingma et al. 2021, in the limit of many steps):

    |x0|^2 / 2 s_max^2 + integral of s^-3 E|x0 - x0_hat|^2 ds - E log p(w | x at s_min)

    Levels are drawn, stratified by row, half from the schedule's own density and half uniformly
    in log s, and weighted by the density of that mixture: no level is weighted without limit.
    """
    return _joined([_bound(subject, *part, options) for part in _parts(batch, options.batch_size)])


@torch.no_grad()
def _bound(subject: GaussianModel, batch: Batch, rows: Index, options: MonteCarloBound) -> Nats:
    clean = _Clean.of(subject, batch, torch.zeros_like(batch.attend), options.previous)
    noise = Noise.keyed(options.seed, rows, 0)
    u = noise.fork(TIMES).uniform(0, (options.draws,), torch.float64)
    integral = torch.zeros(len(rows), dtype=torch.float64, device=u.device)
    for k in range(options.draws):
        stratum = 2.0 * (k // 2 + u[:, k]) / options.draws
        s = _level(subject, stratum, warped=k % 2 == 0)
        integral += clean.integrand(s, noise, k) / options.draws
    prior, reconstruction = clean.ends(noise)
    return Nats(prior, integral, reconstruction, batch.attend.sum(dim=1))


@torch.no_grad()
def conditional(
    subject: GaussianModel, ids: Ids, given: Mask, key: int, options: MonteCarloBound
) -> float:
    """:func:`bound` of one text, ``ids`` and ``given`` (1, L), in nats: of the tokens that are not
    given, given the others. Its draws are keyed by ``key`` and are the rows of each pass.
    """
    clean = _Clean.of(subject, Batch(ids, torch.ones_like(given)), given, options.previous)
    draw = torch.arange(options.draws, device=ids.device)
    noise = Noise.keyed(options.seed, torch.full_like(draw, key), draw)
    u = noise.fork(TIMES).uniform(0, (), torch.float64)
    stratum = 2.0 * (draw // 2 + u) / options.draws
    even, odd = (_level(subject, stratum, warped=warped) for warped in (True, False))
    s = torch.where(draw % 2 == 0, even, odd)
    terms = [
        clean.take(torch.zeros_like(rows)).integrand(s[rows], Noise(noise.key[rows]), 0)
        for rows in draw.split(options.batch_size)
    ]
    prior, reconstruction = clean.ends(Noise(noise.key[:1]))
    return float(prior[0] + torch.cat(terms).mean() + reconstruction[0])


@dataclass(frozen=True)
class _Clean:
    """Rows before they are noised. ``counted`` are the tokens whose likelihood is asked; elsewhere
    ``x0`` and ``weight`` are 0, and where they are, ``weight`` is 1."""

    subject: GaussianModel
    counted: Batch
    x0: Embedded
    weight: Embedded
    known: Conditioning
    previous: Previous

    @staticmethod
    @torch.no_grad()
    def of(subject: GaussianModel, batch: Batch, given: Mask, previous: Previous) -> _Clean:
        """Of ``batch``, where the tokens ``given`` are known and padding has no part."""
        x0, counted = subject.space.embed(batch.ids), batch.attend & ~given
        weight = counted[..., None].to(x0.dtype).expand_as(x0)
        known = Conditioning.of(x0, given, batch.attend)
        return _Clean(subject, Batch(batch.ids, counted), x0 * weight, weight, known, previous)

    def take(self, rows: Index) -> _Clean:
        """Some rows, any of them more than once."""
        batch, (x0, weight, known) = self.counted, take((self.x0, self.weight, self.known), rows)
        counted = Batch(batch.ids[rows], batch.attend[rows])
        return replace(self, counted=counted, x0=x0, weight=weight, known=known)

    def integrand(self, s: PerRow, noise: Noise, draw: int) -> PerRow:
        """s^-3 |x0 - x0_hat|^2, over the density that the levels ``s`` are drawn with."""
        x = self.x0 + s[:, None, None].to(self.x0.dtype) * _normal(noise, CORRUPTION, draw, self.x0)
        prediction = self.subject.predict(x * self.weight, s, self.known, self.previous)
        error = ((self.x0 - prediction.x0_step) * self.weight).double().square().sum(dim=(1, 2))
        return error / s**3 / _density(self.subject, s)

    def ends(self, noise: Noise) -> tuple[PerRow, PerRow]:
        """(prior, reconstruction): the terms at the largest and at the least noise."""
        s_min, s_max = self.subject.ends
        prior = _norm(self.x0) / (2.0 * s_max**2)
        x = self.x0 + s_min * _normal(noise, DEQUANTISE, 0, self.x0)
        least = torch.full_like(prior, s_min)
        last = self.subject.predict(x * self.weight, least, self.known, self.previous)
        return prior, self.subject.reconstruction(last, self.counted)


def _level(subject: GaussianModel, u: Tensor, *, warped: bool) -> Tensor:
    """The quantile ``u`` of the schedule's density, or of the uniform one in log s."""
    if warped:
        return subject.schedule.level(subject.schedule.quantile(u)).ratio.double()
    low, high = map(math.log, subject.ends)
    return (low + u * (high - low)).exp()


def _density(subject: GaussianModel, s: Tensor) -> Tensor:
    """Of the mixture of both, per unit of s."""
    low, high = map(math.log, subject.ends)
    with torch.enable_grad():
        t = subject.schedule.inverse(s).detach().requires_grad_()
        (slope,) = torch.autograd.grad(subject.schedule.level(t).ratio.sum(), t)
    warped = subject.schedule.pdf(t.detach()) / slope
    return 0.5 * warped + 0.5 / (s * (high - low))


def flow(subject: GaussianModel, batch: Batch, options: Flow) -> Nats:
    """The likelihood of the probability-flow ODE, dx/ds = (x - x0_hat) / s (Song et al. 2021).

    Tokens are points, so they are dequantised: x = x0 + s_min * noise, and on average over it

    -log p(w) <= E[log q(x | w) - log p(x) - log p(w | x)]
               = E[|x_max|^2 / 2 s_max^2 - |noise|^2 / 2 + integral of tr(d x0_hat / dx) d log s
                   - log p(w | x)]

    in which the logarithms of s have cancelled. The trace is Hutchinson's, one Rademacher probe
    a draw. A first prediction that is fed back (``unrolled``) depends on x as well: the trace is
    of the whole, differentiated through both passes.
    """
    return _joined([_flow(subject, *part, options) for part in _parts(batch, options.batch_size)])


def _flow(subject: GaussianModel, batch: Batch, rows: Index, options: Flow) -> Nats:
    clean = _Clean.of(subject, batch, torch.zeros_like(batch.attend), options.previous)
    x0, nothing, weight = clean.x0, clean.known, clean.weight
    terms = torch.zeros(3, len(rows), dtype=torch.float64, device=x0.device)
    grid = _grid(subject, options.steps)
    for draw in range(options.draws):
        noise = Noise.keyed(options.seed, rows, draw)
        epsilon = _normal(noise, DEQUANTISE, 0, x0) * weight
        sign = noise.fork(PROBE).uniform(0, x0.shape[1:], torch.float32) < 0.5
        probe = torch.where(sign, -weight, weight)
        x = x0 * weight + grid[0].to(x0.dtype) * epsilon
        end, trace = _carry(subject, x, probe, weight, grid, nothing, options.previous)
        least = grid[0].expand(len(rows))
        with torch.no_grad():
            first = subject.predict(x, least, nothing, options.previous)
            terms[0] += 0.5 * (_norm(end) - _norm(epsilon))
            terms[1] += trace
            terms[2] += subject.reconstruction(first, batch)
    prior, integral, reconstruction = terms / options.draws
    return Nats(prior, integral, reconstruction, batch.attend.sum(dim=1))


def _carry(
    subject: GaussianModel,
    x: Embedded,
    probe: Embedded,
    weight: Embedded,
    grid: Float[Tensor, "N"],
    conditioning: Conditioning,
    previous: Previous,
) -> tuple[Embedded, PerRow]:
    """(x / s at the end, integral of the trace over log s), by Heun's method.

    In z = x / s and 1 / s the flow is dz = x0_hat d(1/s): nothing grows, and nothing is stiff.
    """

    def at(z: Embedded, s: Tensor) -> tuple[Embedded, PerRow]:
        def x0_hat(x: Embedded) -> Embedded:
            levels = s.expand(len(x))
            return subject.predict(x, levels, conditioning, previous).x0_step * weight

        return hutchinson(x0_hat, z * s.to(z.dtype), probe)

    z = x / grid[0].to(x.dtype)
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for here, there in pairwise(grid):
        change = (1.0 / there - 1.0 / here).to(x.dtype)
        drift, trace = at(z, here)
        ahead, trace_ahead = at(z + change * drift, there)
        z = z + 0.5 * change * (drift + ahead)
        total = total + 0.5 * (there / here).log() * (trace + trace_ahead)
    return z, total


def hutchinson(f: Function, x: Embedded, probe: Embedded) -> tuple[Embedded, PerRow]:
    """(f(x), probe . J probe) of each row: on average over probes, the trace of its Jacobian."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = f(x)
        (back,) = torch.autograd.grad((value * probe).sum(), x)
    return value.detach(), (back * probe).double().sum(dim=(1, 2))


def _grid(subject: GaussianModel, steps: int) -> Float[Tensor, "N"]:
    """Ratios from least to largest: half uniform in log s, half where the schedule looks most."""
    device = devices.of(subject.space)
    half = steps // 2
    inner = torch.linspace(0, 1, half + 2, dtype=torch.float64, device=device)[1:-1]
    outer = torch.linspace(0, 1, steps - half + 1, dtype=torch.float64, device=device)
    parts = (_level(subject, inner, warped=True), _level(subject, outer, warped=False))
    low, high = subject.ends
    return torch.cat(parts).clamp(low, high).sort().values


def _normal(noise: Noise, domain: int, draw: int, like: Embedded) -> Embedded:
    return noise.fork(domain).normal(draw, like.shape[1:], like.dtype)


def _norm(x: Embedded) -> PerRow:
    return x.double().square().sum(dim=(1, 2))


def _parts(batch: Batch, size: int) -> Iterator[tuple[Batch, Index]]:
    rows = torch.arange(len(batch.ids), device=batch.ids.device)
    for some in rows.split(size):
        yield Batch(batch.ids[some], batch.attend[some]), some


def _joined(parts: list[Nats]) -> Nats:
    names = ("prior", "integral", "reconstruction", "tokens")
    return Nats(*(torch.cat([getattr(part, name) for part in parts]) for name in names))
