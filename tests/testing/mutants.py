"""Seeded bugs, one or more a check: components that are right but for one thing.

Each is a class derived from a part that passes the kit, and is declared with the check that must
find it and the others that cannot help but notice.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from dlmkit.core.denoise import ModelDenoise
from dlmkit.core.embedding import GaussianCorruption
from dlmkit.core.schedule import Level
from dlmkit.core.start import TextStart
from dlmkit.plugin import Component, Config
from dlmkit.testing import parts
from dlmkit.testing.parts import Nothing
from dlmkit_cdcd.configs import ScoreInterpolation as ScoreOptions
from dlmkit_cdcd.configs import TimeWarpTable as WarpOptions
from dlmkit_cdcd.objective import ScoreInterpolation
from dlmkit_cdcd.schedules import TimeWarpTable
from dlmkit_mdlm.objective import MaskedBound


@dataclass(frozen=True)
class Mutant:
    """A component, the check that must find its bug, and others that may notice it as well."""

    component: Component
    check: str
    also: frozenset[str]
    bug: str


MUTANTS: list[Mutant] = []


def mutant(
    kind: str,
    check: str,
    *also: str,
    config: type[Config] = Nothing,
    module: str = __name__,
    **declared: Any,
) -> Callable[[type], type]:
    """Declares a class with a bug; its docstring says which."""

    def declare(target: type) -> type:
        fields = {
            "name": f"mutant-{len(MUTANTS)}",
            "target": f"{module}:{target.__name__}",
            **declared,
        }
        component = Component(kind=kind, summary="a mutant", config=config, **fields)
        bug = (target.__doc__ or "").partition("\n")[0].rstrip(".")
        MUTANTS.append(Mutant(component, check, frozenset(also), bug))
        return target

    return declare


SPACE = {"provides": frozenset({"gaussian", "tied", "unit-norm"})}


# schedules


@mutant("schedule", "ends-finite", "inverse-round-trip")
class EndsInPureNoise(parts.Preserving):
    """At t_max nothing is left of x0, so that sigma / alpha is infinite."""

    t_max = 1.5

    def level(self, t):
        return Level(torch.where(t >= self.t_max, 0.0, torch.cos(t)), torch.sin(t))


@mutant("schedule", "monotone")
class FallsWithTime(parts.Plain):
    """Noise falls as t rises, and the ends are the wrong way round."""

    def level(self, t):
        return Level(torch.ones_like(t), 1.0 / t)

    def inverse(self, ratio):
        return 1.0 / ratio


@mutant("schedule", "inverse-round-trip")
class InverseOff(parts.Preserving):
    """inverse forgets the arc tangent."""

    def inverse(self, ratio):
        return ratio


@mutant("schedule", "quantile-in-range")
class QuantileBelow(parts.Plain):
    """Draws begin below t_min."""

    def quantile(self, u):
        return super().quantile(u) - 0.05

    def cdf(self, t):
        return super().cdf(t + 0.05)


@mutant("schedule", "cdf-inverts-quantile")
class CdfOfAnother(parts.Plain):
    """quantile is warped, and cdf and pdf are those of uniform draws."""

    def quantile(self, u):
        return super().quantile(u * u)


@mutant("schedule", "pdf-is-the-derivative")
class PdfPerUnit(parts.Plain):
    """pdf is that of t scaled to [0, 1]."""

    def pdf(self, t):
        return torch.ones_like(t)


@mutant("schedule", "any-shape-and-dtype")
class AlwaysDouble(parts.Plain):
    """Levels are float64 whatever the time's dtype."""

    def level(self, t):
        return Level(torch.ones_like(t).double(), t.double())


@mutant("schedule", "any-shape-and-dtype")
class ScheduleMultiplies(parts.Plain):
    """A matrix product, which autocast rounds to bf16."""

    def level(self, t):
        return Level(torch.ones_like(t), (t[..., None] @ t.new_ones(1, 1))[..., 0])


@mutant("schedule", "deterministic", "no-global-randomness", "rows-independent")
class ScheduleRemembers(parts.Plain):
    """Every call adds to a count that is part of the level."""

    calls = 0

    def level(self, t):
        self.calls += 1
        return Level(torch.ones_like(t), t + 1e-9 * self.calls)


@mutant("schedule", "no-global-randomness", "rows-independent", "state-dict-round-trip")
class ScheduleDraws(parts.Plain):
    """quantile jitters u by torch's global generator."""

    def quantile(self, u):
        return super().quantile((u + 1e-7 * torch.rand_like(u)).clamp(max=1.0))


@mutant("schedule", "inputs-untouched", "cdf-inverts-quantile")
class ScheduleWrites(parts.Plain):
    """quantile scales u in place."""

    def quantile(self, u):
        return u.mul_(self.t_max - self.t_min).add_(self.t_min)


@mutant("schedule", "rows-independent")
class ScheduleCentres(parts.Plain):
    """The density is normalised over the times it is asked for."""

    def pdf(self, t):
        p = super().pdf(t)
        return p * (1.0 + 1e-9 * t.mean())


class Table(TimeWarpTable):
    def __init__(self, config, context):
        super().__init__(WarpOptions(t_min=0.5, t_max=20.0, bins=20), context)


@mutant("schedule", "state-dict-round-trip", "learns-on-an-accelerator")
class ForgetsItsTable(Table):
    """The table of losses is no buffer, so that no checkpoint holds it."""

    def __init__(self, config, context):
        super().__init__(config, context)
        means = self.means
        del self.means
        self.means = means


@mutant("schedule", "learns")
class NeverLearns(Table):
    """observe does nothing."""

    def observe(self, t, loss, pdf, rows):
        pass


@mutant("schedule", "ignores-unusable-rows")
class UsesAllRows(Table):
    """Rows with given positions are learned from as well."""

    def observe(self, t, loss, pdf, rows):
        super().observe(t, loss, pdf, rows | rows.any())


@mutant("schedule", "nothing-usable-is-harmless")
class DividesByNothing(Table):
    """The mean over usable rows divides by their number, be it zero."""

    def observe(self, t, loss, pdf, rows):
        super().observe(t, loss, pdf, rows)
        self.means += 0.0 * (loss * rows).sum() / rows.sum()


@mutant("schedule", "processes-agree")
class LearnsFromTheFirst(Table):
    """Only the first rows are learned from, in whatever order they come."""

    def observe(self, t, loss, pdf, rows):
        super().observe(t, loss, pdf, rows & (torch.arange(len(t), device=t.device) < len(t) // 3))


# spaces


@mutant("space", "expects-its-embeddings", "tied-as-claimed", **SPACE)
class ExpectUnscaled(parts.Tied):
    """The mean embedding is that of unit vectors."""

    def expect(self, probabilities):
        return probabilities @ nn.functional.normalize(self.weight, dim=-1)


@mutant("space", "reads-as-it-defines", "tied-as-claimed", **SPACE)
class ReadsSharper(parts.Tied):
    """The fused read forgets a factor in the logits."""

    def read(self, query):
        return super().read(2.0 * query)


@mutant("space", "tied-as-claimed", **SPACE)
class TiedWithBias(parts.Tied):
    """A head with a bias calls itself tied."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.bias = nn.Parameter(torch.randn(self.vocab_size))

    def logits(self, query):
        return super().logits(query) + self.bias


@mutant("space", "norms-as-claimed", **SPACE)
class UnitVectors(parts.Tied):
    """Embeddings have norm 1, not sqrt(D)."""

    def table(self):
        return nn.functional.normalize(self.weight, dim=-1)


@mutant("space", "gaussian-as-claimed", provides=frozenset({"tied", "unit-norm"}))
class KeepsQuiet(parts.Tied):
    """Gaussian noise that is not declared, so that samplers refuse it."""


@mutant("space", "gradient-reaches-the-table", **SPACE)
class Detached(parts.Tied):
    """The table is detached, so that embeddings never learn."""

    def table(self):
        return super().table().detach() + 0.0 * self.weight


@mutant("space", "starts-from-the-text-alone", **SPACE)
class StartsAnew(parts.Tied, TextStart):
    """What starts from the text is drawn from the global generator."""

    @torch.no_grad()
    def start_from(self, data):
        self.weight.normal_()


class CorruptedSpace(parts.Tied):
    corruption_class: type[GaussianCorruption] = GaussianCorruption

    def __init__(self, config, context):
        super().__init__(config, context)
        self.corruption = self.corruption_class()


class FloorNoise(GaussianCorruption):
    def corrupt(self, x0, level, noise):
        return super().corrupt(x0, Level(level.alpha, level.sigma + 0.01), noise)


@mutant("space", "clean-level-is-clean", **SPACE)
class NeverClean(CorruptedSpace):
    """A little noise is added even at the clean level."""

    corruption_class = FloorNoise


class WidePrior(GaussianCorruption):
    def prior(self, like, level, noise):
        return 1.5 * super().prior(like, level, noise)


@mutant("space", "corrupts-towards-its-prior", **SPACE)
class PriorTooWide(CorruptedSpace):
    """Sampling starts from more noise than training ends in."""

    corruption_class = WidePrior


class NoNoise(GaussianCorruption):
    def corrupt(self, x0, level, noise):
        weak = torch.where(level.sigma > 0.3, 0.3 + 0.0 * level.sigma, level.sigma)
        return super().corrupt(x0, Level(torch.ones_like(weak), weak), noise)

    def prior(self, like, level, noise):
        return self.corrupt(like, level, noise)


@mutant("space", "corruption-grows", **SPACE)
class NoiseSaturates(CorruptedSpace):
    """Noise stops growing early, and the prior is still full of the text."""

    corruption_class = NoNoise


class Unscaled(GaussianCorruption):
    def input(self, x, level):
        return x / level.like(x).sigma


@mutant("space", "input-is-what-networks-read", **SPACE)
class DividesBySigma(CorruptedSpace):
    """The network's input is not finite at the clean level."""

    corruption_class = Unscaled


@mutant("space", "positions-embed-alone", "expects-its-embeddings", "norms-as-claimed", **SPACE)
class Contextual(parts.Tied):
    """A token's embedding holds a little of the row's mean."""

    def embed(self, ids):
        x0 = super().embed(ids)
        return x0 + 1e-4 * (x0.mean(dim=1, keepdim=True) - x0)


@mutant("space", "decodes-what-is-certain", **SPACE)
class DecodesTheLeast(parts.Tied):
    """decode takes the least likely token."""

    def decode(self, x, query):
        return self.logits(query).argmin(dim=-1)


class CountedNoise(GaussianCorruption):
    calls = 0

    def corrupt(self, x0, level, noise):
        self.calls += 1
        return super().corrupt(x0, level, noise) * (1.0 + 1e-6 * self.calls * level.like(x0).sigma)


@mutant("space", "deterministic", "no-global-randomness", **SPACE)
class NoiseChangesByCall(CorruptedSpace):
    """Every corruption is a little stronger than the last."""

    corruption_class = CountedNoise


class GlobalNoise(GaussianCorruption):
    def corrupt(self, x0, level, noise):
        alpha, sigma = level.like(x0)
        return alpha * x0 + sigma * torch.randn_like(x0)


@mutant("space", "no-global-randomness", "rows-independent", **SPACE)
class NoiseFromNowhere(CorruptedSpace):
    """Noise comes from torch's global generator."""

    corruption_class = GlobalNoise


class InPlace(GaussianCorruption):
    def input(self, x, level):
        scale = torch.rsqrt(level.alpha**2 + level.sigma**2)
        level.sigma.mul_(1.0001)
        return x * Level(scale, scale).like(x).alpha


@mutant("space", "inputs-untouched", **SPACE)
class InputInPlace(CorruptedSpace):
    """Reading x changes the level it is given."""

    corruption_class = InPlace


class Whitened(GaussianCorruption):
    def input(self, x, level):
        return super().input(x, level) / (1.0 + 1e-3 * x.square().mean())


@mutant("space", "rows-independent", **SPACE)
class BatchNormed(CorruptedSpace):
    """The network's input is scaled by the whole batch's size."""

    corruption_class = Whitened


# networks


@mutant("network", "answers-in-queries")
class AnswersInPoints(parts.Mixing):
    """It puts out the channels that it reads."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.query = nn.Linear(16, context.part("space").dim)


@mutant("network", "padding-is-not-read", "padding-can-be-cut")
class ReadsPadding(parts.Mixing):
    """The mean runs over padding too."""

    def forward(self, x, level, conditioning, previous):
        everything = replace(conditioning, attend=torch.ones_like(conditioning.attend))
        return super().forward(x, level, everything, previous)


@mutant("network", "padding-can-be-cut")
class CountsPositions(parts.Mixing):
    """The output depends on how long the padded row is."""

    def forward(self, x, level, conditioning, previous):
        return super().forward(x, level, conditioning, previous) * (1.0 + 0.1 / x.shape[1])


@mutant("network", "gradients-reach-all")
class DeadWeights(parts.Mixing):
    """A layer is built and never used."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.unused = nn.Linear(3, 3)


@mutant("network", "shard-units-run")
class PastItsHooks(parts.Mixing):
    """A block's forward is called past the module."""

    def forward(self, x, level, conditioning, previous):
        block = self.block
        self.block = _Bare(block.forward)
        try:
            return super().forward(x, level, conditioning, previous)
        finally:
            self.block = block


class _Bare(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.forward = call


@mutant("network", "shard-units-are-its-own")
class OneBlockTwice(parts.Mixing):
    """One block is listed inside another unit too."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.outer = nn.Sequential(self.block)

    def forward(self, x, level, conditioning, previous):
        block, self.block = self.block, self.outer
        try:
            return super().forward(x, level, conditioning, previous)
        finally:
            self.block = block

    def shard_units(self):
        return (self.outer, self.block)


@mutant("network", "weights-travel", "runs-on-an-accelerator")
class SecretWeights(parts.Mixing):
    """A random projection is kept beside the state_dict."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.secret = [torch.randn(16)]

    def forward(self, x, level, conditioning, previous):
        query = super().forward(x, level, conditioning, previous)
        return query + self.secret[0][: query.shape[-1]]


@mutant("network", "weights-follow-the-seed", "runs-on-an-accelerator")
class RandomStart(parts.Mixing):
    """Weights are drawn from the operating system."""

    def __init__(self, config, context):
        super().__init__(config, context)
        with torch.no_grad():
            self.query.bias += random.SystemRandom().random()


@mutant("network", "deterministic", "no-global-randomness")
class NetworkRemembers(parts.Mixing):
    """The output grows with every call."""

    calls = 0

    def forward(self, x, level, conditioning, previous):
        self.calls += 1
        return super().forward(x, level, conditioning, previous) * (1.0 + 1e-6 * self.calls)


@mutant("network", "no-global-randomness", "weights-travel")
class AlwaysDrops(parts.Mixing):
    """Dropout that does not end in evaluation mode."""

    def forward(self, x, level, conditioning, previous):
        query = super().forward(x, level, conditioning, previous)
        return query + 1e-6 * torch.randn_like(query)


@mutant("network", "inputs-untouched")
class NetworkWrites(parts.Mixing):
    """It clears given positions of x in place."""

    def forward(self, x, level, conditioning, previous):
        x.masked_fill_(conditioning.given[..., None], 0.0)
        return super().forward(x, level, conditioning, previous)


@mutant("network", "rows-independent")
class BatchMean(parts.Mixing):
    """The batch's mean is taken out of the output."""

    def forward(self, x, level, conditioning, previous):
        query = super().forward(x, level, conditioning, previous)
        return query - 0.1 * query[:, :1].mean(dim=0, keepdim=True)


# objectives

CROSS = {"provides": frozenset({"cross-entropy", "conditioning-dropout"})}


class Loss(parts.NoisedCrossEntropy):
    """One thing is changed in what forward returns."""

    def forward(self, batch, draws):
        return self.change(super().forward(batch, draws), batch, draws)

    def change(self, loss, batch, draws):
        return loss


@mutant(
    "objective",
    "oracle-has-no-loss",
    "given-does-not-count",
    "ignorance-costs-log-v",
    "posterior-costs-its-entropy",
    **CROSS,
)
class AddsAConstant(Loss):
    """A constant is left in the loss."""

    def change(self, loss, batch, draws):
        return replace(loss, loss_sum=loss.loss_sum + 0.1 * loss.count, per_row=loss.per_row + 0.1)


@mutant("objective", "ignorance-costs-log-v", "posterior-costs-its-entropy", **CROSS)
class Halved(Loss):
    """The loss is half the cross-entropy."""

    def change(self, loss, batch, draws):
        return replace(loss, loss_sum=0.5 * loss.loss_sum, per_row=0.5 * loss.per_row)


@mutant("objective", "posterior-costs-its-entropy", **CROSS)
class TellsAnotherLevel(parts.NoisedCrossEntropy):
    """The network is told of half the noise that there is."""

    def forward(self, batch, draws):
        network = self.network
        self.network = _Bare(
            lambda x, level, *rest: network(x, Level(level.alpha, 0.5 * level.sigma), *rest)
        )
        try:
            return super().forward(batch, draws)
        finally:
            self.network = network


@mutant(
    "objective",
    "bound-is-the-entropy",
    provides=frozenset({"likelihood-bound"}),
    requires=frozenset({"masked"}),
)
class HalfTheBound(MaskedBound):
    """The loss is half the bound that it calls itself."""

    def forward(self, batch, draws):
        loss = super().forward(batch, draws)
        return replace(loss, loss_sum=0.5 * loss.loss_sum, per_row=0.5 * loss.per_row)


@mutant("objective", "padding-does-not-count", **CROSS)
class PaddingLeaks(Loss):
    """The ids at padding enter the loss a little."""

    def change(self, loss, batch, draws):
        leak = 1.0 + 1e-3 * torch.where(batch.attend, 0, batch.ids).sum()
        return replace(loss, loss_sum=loss.loss_sum * leak, per_row=loss.per_row * leak)


@mutant("objective", "given-does-not-count", "posterior-costs-its-entropy", **CROSS)
class GivenCounts(parts.NoisedCrossEntropy):
    """Given positions are counted like noised ones."""

    def forward(self, batch, draws):
        noised = self.noised(batch, draws)
        count = (batch.attend & ~noised.given).sum(dim=1)
        logits = self.space.logits(noised.query()).transpose(1, 2)
        entropy = nn.functional.cross_entropy(logits, batch.ids, reduction="none")
        rows = torch.where(batch.attend, entropy, 0.0).sum(dim=1)
        rows = rows * count / batch.attend.sum(dim=1)
        loss = self.loss(entropy, noised)
        return replace(loss, loss_sum=rows.sum(), per_row=rows.detach() / count)


@mutant(
    "objective",
    "counts-noised-positions",
    "ignorance-costs-log-v",
    "posterior-costs-its-entropy",
    **CROSS,
)
class CountsTokens(Loss):
    """count holds every token, given ones too."""

    def change(self, loss, batch, draws):
        return replace(loss, count=batch.attend.sum().to(loss.loss_sum.dtype))


@mutant("objective", "rows-report-detached", **CROSS)
class KeepsTheGraph(Loss):
    """per_row still carries the graph, which keeps every step's memory."""

    def change(self, loss, batch, draws):
        return replace(loss, per_row=loss.per_row + 0.0 * loss.loss_sum)


@mutant("objective", "losses-add-up", "posterior-costs-its-entropy", **CROSS)
class MeanOfTheBatch(Loss):
    """loss_sum is divided by the rows of this pass."""

    def change(self, loss, batch, draws):
        rows = len(batch.ids) / 8
        return replace(loss, loss_sum=loss.loss_sum / rows)


@mutant("objective", "losses-add-up", **CROSS)
class ShowsHalfOfEachPass(ScoreInterpolation):
    """Half of the rows of this pass see a first prediction, however few they are."""

    def __init__(self, config, context):
        super().__init__(ScoreOptions(conditioning_dropout=0.0), context)

    def forward(self, batch, draws):
        return super().forward(batch, replace(draws, slots=None))


@mutant("objective", "times-follow-the-schedule", **CROSS)
class PdfOfOne(Loss):
    """pdf is 1 at every draw."""

    def change(self, loss, batch, draws):
        return replace(loss, pdf=torch.ones_like(loss.t))


@mutant("objective", "trains-through-forward", **CROSS)
class CallsForward(parts.NoisedCrossEntropy):
    """The network's forward is called past its hooks."""

    def forward(self, batch, draws):
        network = self.network
        self.network = _Bare(network.forward)
        try:
            return super().forward(batch, draws)
        finally:
            self.network = network


@mutant("objective", "holds-its-parts", **CROSS)
class HidesItsSchedule(parts.NoisedCrossEntropy):
    """The schedule is kept where no state_dict finds it."""

    def __init__(self, config, context):
        super().__init__(config, context)
        schedule = self._modules.pop("schedule")
        self.__dict__["schedule"] = schedule


class FlatDenoise(ModelDenoise):
    def __call__(self, x, level, previous, conditioning):
        prediction = super().__call__(x, level, previous, conditioning)
        return replace(prediction, lse=prediction.lse + 1.0)


@mutant("objective", "denoiser-reads-the-space", **CROSS)
class WrongNormaliser(parts.NoisedCrossEntropy):
    """The denoiser's log-sum-exp is off by one."""

    def denoise(self):
        return FlatDenoise(self.space, self.network)


@mutant("objective", "deterministic", "no-global-randomness", **CROSS)
class LossRemembers(Loss):
    """Times shift with every call."""

    calls = 0

    def change(self, loss, batch, draws):
        self.calls += 1
        return replace(loss, t=loss.t * (1.0 + 1e-7 * self.calls))


@mutant("objective", "no-global-randomness", **CROSS)
class LossDraws(Loss):
    """per_row is jittered by torch's global generator."""

    def change(self, loss, batch, draws):
        return replace(loss, per_row=loss.per_row + 1e-7 * torch.rand_like(loss.per_row))


@mutant("objective", "inputs-untouched", **CROSS)
class LossWrites(Loss):
    """u is clamped in place."""

    def change(self, loss, batch, draws):
        draws.u.clamp_(min=0.1)
        return loss


@mutant("objective", "rows-independent", "counts-noised-positions", **CROSS)
class RowsShare(Loss):
    """A row's report holds a little of the batch's mean."""

    def change(self, loss, batch, draws):
        return replace(loss, per_row=loss.per_row + 1e-3 * (loss.t.mean() - 0.1))
