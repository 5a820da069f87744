"""Seeded bugs in samplers, grids, exit rules, guidance and statistics."""

from __future__ import annotations

from dataclasses import replace

import torch
from mutants import mutant as declare

from dlmkit import rows
from dlmkit.core.denoise import Wrapped
from dlmkit.core.exits import ExitCriterion, Statistic
from dlmkit.core.guidance import Guidance
from dlmkit.core.options import Nothing
from dlmkit_samplers import configs as options
from dlmkit_samplers.exits import Patience
from dlmkit_samplers.grids import Linear
from dlmkit_samplers.guidance import ClassifierFree
from dlmkit_samplers.samplers import Euler, Heun
from dlmkit_samplers.statistics import Entropy, KullbackLeibler

GAUSSIAN = {"requires": frozenset({"gaussian"}), "config": Nothing}
FIRST = {**GAUSSIAN, "provides": frozenset({"order-1"})}
SECOND = {**GAUSSIAN, "provides": frozenset({"order-2"})}


def mutant(kind, check, *also, **declared):
    return declare(kind, check, *also, module=__name__, **declared)


# samplers


class Altered(Euler):
    """Euler whose step is changed on the way out."""

    def step(self, denoise, x, step, state):
        x, prediction, state = super().step(denoise, x, step, state)
        return self.change(x, step.next), prediction, state

    def change(self, x, next):
        return x


@mutant("sampler", "deterministic", "no-global-randomness", "order-as-claimed", **FIRST)
class StepsByCount(Altered):
    """Every step is a little longer than the one before."""

    calls = 0

    def change(self, x, next):
        self.calls += 1
        return x * (1.0 + 1e-6 * self.calls * (next.like(x).sigma > 0))


@mutant("sampler", "no-global-randomness", **FIRST)
class StepDraws(Altered):
    """Noise comes from torch's global generator."""

    def change(self, x, next):
        return x + 1e-6 * torch.randn_like(x) * next.like(x).sigma


@mutant("sampler", "inputs-untouched", **FIRST)
class StepWrites(Euler):
    """x is scaled in place."""

    def step(self, denoise, x, step, state):
        x, y = x.mul_(1.0001), x / 1.0001
        return super().step(denoise, y, step, state)


@mutant(
    "sampler",
    "rows-independent",
    "order-as-claimed",
    "reaches-the-distribution",
    "survives-compaction",
    "survives-refill",
    **FIRST,
)
class StepCentres(Altered):
    """The batch's mean is taken out of x."""

    def change(self, x, next):
        return x - 0.1 * x.mean(dim=0, keepdim=True) * (next.like(x).sigma > 0)


@mutant("sampler", "survives-compaction", "rows-independent", "survives-refill", **FIRST)
class RemembersByPlace(Euler):
    """A list in the sampler, not its state, remembers each place's last x."""

    def init(self, x):
        self.last = torch.zeros(6)
        return torch.zeros(len(x))

    def step(self, denoise, x, step, state):
        moved, prediction, state = super().step(denoise, x, step, state)
        if len(x) == len(self.last):
            moved = moved + 1e-2 * self.last.to(x)[:, None, None] * step.next.like(x).sigma
            self.last = x.mean(dim=(1, 2))
        return moved, prediction, state


@mutant("sampler", "survives-refill", "order-as-claimed", **FIRST)
class CountsStepsOfAll(Euler):
    """The state counts the batch's steps, and a fresh row is told the others' count."""

    def init(self, x):
        return torch.zeros(len(x))

    def step(self, denoise, x, step, state):
        moved, prediction, _ = super().step(denoise, x, step, state)
        first = (state.max() == 0).to(x)
        return moved * (1.0 + 1e-2 * first * (step.next_ratio > 0)), prediction, state + 1


@mutant("sampler", "slots-do-not-matter", **FIRST)
class WidthMatters(Altered):
    """The step depends on how many rows there are."""

    def change(self, x, next):
        return x if len(x) != 2 else -4.0 * x


@mutant("sampler", "ends-on-the-prediction", "reaches-a-point-mass", **FIRST)
class StopsShort(Altered):
    """A row that ends clean keeps some of its noise."""

    def change(self, x, next):
        return x + 0.01 * (next.like(x).sigma == 0)


@mutant("sampler", "hands-on-what-is-fed-back", "reaches-a-point-mass", **FIRST)
class ForgetsPrevious(Euler):
    """The denoiser is given zeros in place of the previous prediction."""

    def step(self, denoise, x, step, state):
        return super().step(
            denoise, x, replace(step, previous=torch.zeros_like(step.previous)), state
        )


@mutant("sampler", "counts-its-evaluations", **SECOND)
class SaysOne(Heun):
    """It evaluates twice and says once."""

    def evaluations(self, last):
        return torch.ones_like(last, dtype=torch.int64)


@mutant(
    "sampler", "reaches-a-point-mass", "ends-on-the-prediction", "reaches-the-distribution", **FIRST
)
class StepsPast(Altered):
    """Large values are clipped, and embeddings with them."""

    def change(self, x, next):
        return torch.where(next.like(x).sigma == 0, x.clamp(-0.2, 0.2), x)


@mutant("sampler", "order-as-claimed", **SECOND)
class SlopeOfTheStart(Heun):
    """The second evaluation is made and not used."""

    def slope(self, first, second):
        return first


@mutant("sampler", "reaches-the-distribution", **GAUSSIAN)
class TooMuchNoise(Euler):
    """Fresh noise is added on top of a whole step."""

    def step(self, denoise, x, step, state):
        moved, prediction, state = super().step(denoise, x, step, state)
        fresh = step.noise.normal(0, x.shape[1:], x.dtype)
        return moved + 0.3 * step.next.like(x).sigma * fresh, prediction, state


@mutant(
    "sampler",
    "guidance-may-move-its-target",
    "counts-its-evaluations",
    "ends-on-the-prediction",
    **FIRST,
)
class StepsToTheMean(Euler):
    """It steps towards x0_mean, past all guidance."""

    def step(self, denoise, x, step, state):
        def plain(x, level, previous):
            prediction = denoise(x, level, previous)
            return replace(prediction, x0_step=prediction.x0_mean)

        x, _, state = super().step(plain, x, step, state)
        return x, plain(x, step.here, step.previous), state


# grids


class Points(Linear):
    def points(self, schedule, n):
        return self.change(super().points(schedule, n), schedule, n)


@mutant("grid", "gives-n-float64-points", "falls-strictly", "spans-the-schedule", config=Nothing)
class OneTooMany(Points):
    """It counts steps, not points."""

    def change(self, points, schedule, n):
        return super().points(schedule, n + 1) if n > 100 else points


@mutant("grid", "falls-strictly", config=Nothing)
class StandsStill(Points):
    """Two neighbours coincide on long grids."""

    def change(self, points, schedule, n):
        points[n // 2] = points[n // 2 - 1] if n > 100 else points[n // 2]
        return points


@mutant("grid", "spans-the-schedule", config=Nothing)
class StopsBefore(Points):
    """It ends before t_min."""

    def change(self, points, schedule, n):
        return points + 1e-9 * (n > 2)


@mutant("grid", "leaves-the-schedule", "runs-on-an-accelerator", config=Nothing)
class Jitters(Points):
    """Inner points are jittered by torch's global generator."""

    def change(self, points, schedule, n):
        points[1:-1] += 1e-6 * torch.rand_like(points[1:-1])
        return points


# exit rules


class Rule(Patience):
    """Three steps of low entropy, one thing changed."""

    def __init__(self, config, context):
        held = {"use": "samplers:entropy", "with": {"threshold": 0.1}}
        super().__init__(options.Patience.model_validate({"rule": held, "steps": 3}), context)


RULE = {"config": Nothing}


@mutant("exit", "deterministic", **RULE)
class CountsItself(Rule):
    """The rule itself counts calls, and halts later every time."""

    calls = 0

    def __call__(self, statistics, memory):
        self.calls += 1
        halt, memory = super().__call__(statistics, memory)
        return halt & (self.calls > 60), memory


@mutant("exit", "no-global-randomness", **RULE)
class TossesACoin(Rule):
    """A coin of torch's global generator decides, once in a while."""

    def __call__(self, statistics, memory):
        halt, memory = super().__call__(statistics, memory)
        torch.rand(1)
        return halt, memory


@mutant("exit", "inputs-untouched", **RULE)
class ClampsInPlace(Rule):
    """Statistics are clamped in place."""

    def __call__(self, statistics, memory):
        statistics["entropy"].clamp_(max=5.0)
        return super().__call__(statistics, memory)


@mutant("exit", "rows-independent", "refilled-rows-start-afresh", **RULE)
class AllTogether(Rule):
    """Rows halt only together."""

    def __call__(self, statistics, memory):
        halt, memory = super().__call__(statistics, memory)
        return halt & halt.all(), memory


@mutant("exit", "needs-are-exact", **RULE)
class NeedsMore(Rule):
    """It asks for a statistic that it never reads."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.needs = ("entropy", "kl")


@mutant("exit", "needs-exist", **RULE)
class NeedsTheUnknown(Rule):
    """It reads a statistic that nobody provides."""

    needs = ("certainty-of-the-heart",)

    def __init__(self, config, context):
        super().__init__(config, context)
        self.needs = ("certainty-of-the-heart",)

    def __call__(self, statistics, memory):
        return super().__call__({"entropy": statistics[self.needs[0]]}, memory)


@mutant("exit", "nan-never-halts", **RULE)
class NotAbove(Rule):
    """It halts where entropy is not above the threshold, which not-a-number never is."""

    def __call__(self, statistics, memory):
        entropy = statistics["entropy"]
        return super().__call__({"entropy": torch.where(entropy >= 0.1, entropy, 0.0)}, memory)


@mutant("exit", "halts-in-the-end", "runs-on-an-accelerator", **RULE)
class NeverHalts(Rule):
    """Its memory is reset every step, so that it never gets to three."""

    def __call__(self, statistics, memory):
        halt, memory = super().__call__(statistics, self.init(len(memory.held)))
        return halt, memory


@mutant("exit", "memory-survives-take", "refilled-rows-start-afresh", **RULE)
class RemembersPlaces(Rule):
    """The memory is kept by place in the rule, whatever moves."""

    def init(self, rows):
        self.held = super().init(rows)
        return self.held

    def __call__(self, statistics, memory):
        count = len(statistics["entropy"])
        mine = rows.take(self.held, torch.arange(count))
        halt, self.held = super().__call__(statistics, mine)
        return halt, self.held


@mutant("exit", "refilled-rows-start-afresh", "rows-independent", **RULE)
class FreshRowsAreOld(ExitCriterion):
    """A lone fresh row is given the memory of one that has waited."""

    needs = ("entropy",)

    def __init__(self, config, context):
        pass

    def init(self, rows):
        return torch.full((rows,), 2 if rows == 1 else 0)

    def __call__(self, statistics, memory):
        memory = memory + (statistics["entropy"] < 0.1)
        return memory >= 3, memory

    def reason(self, memory):
        return "entropy < 0.1 three times"


@mutant("exit", "gives-its-reason", **RULE)
class NoReason(Rule):
    """It does not say why."""

    def reason(self, memory):
        return ""


@mutant("exit", "answers-in-rows", **RULE)
class AnswersInNumbers(Rule):
    """It answers 0 or 1 in place of false or true."""

    def __call__(self, statistics, memory):
        halt, memory = super().__call__(statistics, memory)
        return halt.float(), memory


# guidance

GUIDED = {
    "requires": frozenset({"gaussian", "conditioning-dropout"}),
    "config": options.ClassifierFree,
}


class _Changed(Wrapped):
    def __init__(self, inner, change):
        super().__init__(inner)
        self.change = change

    def __call__(self, x, level, previous, conditioning):
        prediction = super().__call__(x, level, previous, conditioning)
        return self.change(prediction, x, level, previous, conditioning)


class Guided(ClassifierFree):
    def wrap(self, denoise):
        self.calls = 0
        return _Changed(super().wrap(denoise), self.change)

    def change(self, prediction, x, level, previous, conditioning):
        return prediction


@mutant("guidance", "deterministic", "no-global-randomness", **GUIDED)
class ScaleDrifts(Guided):
    """The scale grows with every call."""

    def change(self, prediction, x, level, previous, conditioning):
        self.calls += 1
        free = ~conditioning.given[..., None]
        return replace(prediction, x0_step=prediction.x0_step * (1.0 + 1e-5 * self.calls * free))


@mutant("guidance", "no-global-randomness", **GUIDED)
class GuidanceDraws(Guided):
    """A little global noise is added where nothing is given."""

    def change(self, prediction, x, level, previous, conditioning):
        free = ~conditioning.given[..., None]
        moved = prediction.x0_step + 1e-6 * free * torch.randn_like(prediction.x0_step)
        return replace(prediction, x0_step=moved)


@mutant("guidance", "inputs-untouched", "statistics-are-left-alone", **GUIDED)
class GuidanceWrites(Guided):
    """x is clamped in place."""

    def change(self, prediction, x, level, previous, conditioning):
        x.clamp_(-1.0, 1.0)
        return prediction


@mutant("guidance", "rows-independent", **GUIDED)
class GuidanceShares(Guided):
    """Rows are pulled towards the batch's mean."""

    def change(self, prediction, x, level, previous, conditioning):
        x0, free = prediction.x0_step, ~conditioning.given[..., None]
        return replace(prediction, x0_step=x0 - 0.1 * free * x0.mean(dim=0, keepdim=True))


@mutant("guidance", "wraps-a-denoiser", config=Nothing)
class GivesAFunction(Guidance):
    """wrap gives a class that is no denoiser."""

    def __init__(self, config, context):
        pass

    def wrap(self, denoise):
        class Loose:
            start = staticmethod(denoise.start)

            def __call__(self, *arguments):
                return denoise(*arguments)

        return Loose()


@mutant("guidance", "statistics-are-left-alone", **GUIDED)
class ScalesTheQuery(Guided):
    """The query, which statistics read, is scaled with the guidance."""

    def change(self, prediction, x, level, previous, conditioning):
        return replace(prediction, query=2.0 * prediction.query)


@mutant("guidance", "given-positions-stay", **GUIDED)
class MovesTheGiven(Guided):
    """Given positions are moved like the others."""

    def change(self, prediction, x, level, previous, conditioning):
        return replace(prediction, x0_step=prediction.x0_step + 0.1)


@mutant("guidance", "feeds-back-what-it-takes", **GUIDED)
class OneBranchBack(Guided):
    """It starts with two branches and feeds back three values."""

    def change(self, prediction, x, level, previous, conditioning):
        return replace(prediction, feedback=(*prediction.feedback[:2], prediction.lse))


@mutant("guidance", "evaluates-alike", **GUIDED)
class SometimesTwice(Guided):
    """The null branch is evaluated only at some calls."""

    def wrap(self, denoise):
        guided = super().wrap(denoise)
        inner, calls = guided.inner, [0]

        def change(prediction, x, level, previous, conditioning):
            calls[0] += 1
            if calls[0] == 2:
                inner(x, level, previous, conditioning)
            return prediction

        return _Changed(inner, change)


# statistics


class Number(Statistic):
    def __init__(self, config, context):
        pass

    def per_position(self, space, now, before):
        log_p = space.logits(now.query).log_softmax(dim=-1)
        return self.change(-(log_p.exp() * log_p).sum(dim=-1))

    def change(self, values):
        return values


PLAIN = {"config": Nothing}


@mutant("statistic", "deterministic", "no-global-randomness", **PLAIN)
class NumberDrifts(Number):
    """It grows with every call."""

    calls = 0

    def change(self, values):
        self.calls += 1
        return values * (1.0 + 1e-6 * self.calls)


@mutant("statistic", "no-global-randomness", **PLAIN)
class NumberDraws(Number):
    """It is jittered by torch's global generator."""

    def change(self, values):
        return values + 1e-7 * torch.rand_like(values)


@mutant("statistic", "inputs-untouched", **PLAIN)
class NumberWrites(Number):
    """The query is centred in place."""

    def per_position(self, space, now, before):
        values = super().per_position(space, now, before)
        now.lse.add_(1e-3)
        return values


@mutant("statistic", "rows-independent", "reads-generated-positions", **PLAIN)
class NumberShares(Number):
    """It is taken relative to the batch's mean."""

    def change(self, values):
        return values - 0.1 * values[:, :1].mean(dim=0, keepdim=True)


@mutant("statistic", "gives-a-number-a-position", "positions-stand-alone", **PLAIN)
class Infinite(Entropy):
    """A position that is certain enough becomes infinite."""

    def per_position(self, space, now, before):
        values = super().per_position(space, now, before)
        return torch.where(values < values.median(), torch.inf, values)


@mutant("statistic", "positions-stand-alone", "reads-generated-positions", **PLAIN)
class Smoothed(Number):
    """Positions are smoothed over their neighbours."""

    def change(self, values):
        return 0.9 * values + 0.1 * values.mean(dim=1, keepdim=True)


@mutant("statistic", "tied-agrees-with-plain", **PLAIN)
class ShortFormWrong(Entropy):
    """The short form forgets the log-sum-exp."""

    def per_position(self, space, now, before):
        if space.tied:
            return -(now.query * now.x0_mean).sum(dim=-1)
        return super().per_position(space, now, before)


@mutant("statistic", "needs-before-as-it-says", **PLAIN)
class SaysItNeedsNothing(KullbackLeibler):
    """It compares two steps and says that it needs one."""

    needs_before = False


@mutant("statistic", "reads-generated-positions", **PLAIN)
class MeanOfAll(Number):
    """The mean runs over given positions too."""

    def __call__(self, space, now, before, has_before, generated):
        return self.per_position(space, now, before).mean(dim=1)


@mutant("statistic", "reads-generated-positions", **PLAIN)
class SumOfAll(Number):
    """It adds up all positions, given ones too."""

    def of_row(self, values, generated):
        return values.sum(dim=1)


@mutant("statistic", "name-is-free", name="sigma", **PLAIN)
class CalledSigma(Number):
    """It takes the name of a statistic that is built in."""
