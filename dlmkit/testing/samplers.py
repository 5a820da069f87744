"""Checks of samplers: as pure steps, in the loop, and against exact solutions.

The exact test-bed is one Gaussian token of mean M and standard deviation C. Its denoiser is
x0(x, s) = M + C^2 / (C^2 + s^2) (x - M), with x over alpha and s = sigma / alpha, and its
probability flow is x(s) = M + (x(S) - M) sqrt((C^2 + s^2) / (C^2 + S^2)).
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.core.denoise import CountingDenoise, Denoise, Prediction
from dlmkit.core.embedding import GaussianCorruption
from dlmkit.core.network import Conditioning
from dlmkit.core.sampler import Sampler, Step
from dlmkit.core.schedule import Level
from dlmkit.noise import Noise
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import unconditional
from dlmkit.sampling.runner import generate
from dlmkit.testing.compare import Exercise, agree, copied, finite, pure, require
from dlmkit.testing.outcome import NotApplicable
from dlmkit.testing.parts import LENGTH
from dlmkit.testing.spaces import clean, random_ids
from dlmkit.testing.subject import Subject
from dlmkit.testing.suite import check

KIND = "sampler"
ROWS, STEPS = 6, 8
M, C = 0.7, 0.5


def conditioning(subject: Subject) -> Conditioning:
    """Nothing is given and nothing is padding."""
    nothing = torch.zeros(ROWS, LENGTH, dtype=torch.bool)
    return Conditioning(nothing, torch.zeros(ROWS, LENGTH, subject.space.dim), ~nothing)


def ladder(subject: Subject, steps: int = 5) -> list[Level]:
    """Levels of ROWS rows, each row at its own place, falling from step to step."""
    schedule = subject.parts.part("schedule")
    start = torch.linspace(0.6, 0.95, ROWS)[:, None]
    u = start * torch.linspace(1.0, 0.2, steps)
    levels = []
    with torch.no_grad():
        for step in range(steps):
            levels.append(Level(*schedule.level(schedule.quantile(u[:, step]))))
    return levels


def noise(step: int) -> Noise:
    """The noise of one step, keyed by row."""
    return Noise.keyed(7, torch.arange(ROWS), step)


@torch.no_grad()
def start(subject: Subject) -> Tensor:
    """Corrupted random tokens at the ladder's first level."""
    space = subject.space
    x0 = space.embed(random_ids(space))
    x: Tensor = space.corruption.corrupt(x0, ladder(subject)[0], noise(99))
    return x


class Walk:
    """Rows on their way: x, the sampler's state, what is fed back, and what is known."""

    def __init__(self, subject: Subject, sampler: Sampler, denoise: Denoise | None = None) -> None:
        self.subject, self.sampler = subject, sampler
        self.denoise = denoise or subject.denoise
        x = start(subject)
        self.value: Any = (x, sampler.init(x), self.denoise.start(x), conditioning(subject))

    @torch.no_grad()
    def step(self, here: Level, there: Level, noise: Noise, index: int = 0) -> Prediction:
        """One step of all rows."""
        x, state, previous, known = self.value
        x, prediction, state = self.sampler.step(
            lambda x, level, previous: self.denoise(x, level, previous, known),
            x,
            Step.between(x, here, there, noise, previous, index, STEPS),
            state,
        )
        self.value = (x, state, prediction.feedback, known)
        return prediction


def _exercise(subject: Subject) -> Exercise:
    sampler, denoise = subject.built, subject.denoise
    levels = ladder(subject, 4)

    @torch.no_grad()
    def call(x: Tensor, levels: Any, noises: Any, previous: Any, known: Conditioning) -> Any:
        state = sampler.init(x)
        for index, (here, there) in enumerate(pairwise(levels)):
            x, prediction, state = sampler.step(
                lambda x, level, previous: denoise(x, level, previous, known),
                x,
                Step.between(x, here, there, noises[index], previous, index, STEPS),
                state,
            )
            previous = prediction.feedback
        return x, prediction.query, prediction.feedback

    x = start(subject)
    noises = tuple(noise(step) for step in range(len(levels) - 1))
    inputs = (x, tuple(levels), noises, denoise.start(x), conditioning(subject))
    return Exercise(call, inputs, 1e-4)


pure(KIND, _exercise)


@check(KIND)
def survives_compaction(subject: Subject) -> None:
    """Rows that change places, or are left out, go on as before, its state included"""
    levels = ladder(subject)
    stay, move = Walk(subject, subject.built), Walk(subject, subject.built)
    index = torch.tensor([5, 1, 2])
    for step, (here, there) in enumerate(pairwise(levels)):
        if step == 2:
            move.value = rows.take(move.value, index)
        stay.step(here, there, noise(step))
        moved = rows.take((here, there, noise(step)), index) if step >= 2 else None
        move.step(*(moved or (here, there, noise(step))))
    agree(move.value[0], stay.value[0][index], "rows that moved and rows that stayed", 1e-4)


@check(KIND)
def survives_refill(subject: Subject) -> None:
    """A row that takes over a slot is stepped as if it had begun alone"""
    levels, slot = ladder(subject), torch.tensor([3])
    alone, late = Walk(subject, subject.built), Walk(subject, subject.built)
    alone.value = rows.take(alone.value, slot)
    fresh = alone.value
    for step in range(2):
        late.step(levels[step], levels[step + 1], noise(step))
    late.value = rows.put(late.value, slot, fresh)
    for step in range(2):
        here, there = (
            rows.put(levels[place], slot, rows.take(levels[place - 2], slot))
            for place in (step + 2, step + 3)
        )
        key = rows.put(noise(step + 2), slot, rows.take(noise(step), slot))
        late.step(here, there, key)
        alone.step(*rows.take((levels[step], levels[step + 1], noise(step)), slot))
    agree(late.value[0][slot], alone.value[0], "a row in another's slot and alone", 1e-4)


@check(KIND)
def slots_do_not_matter(subject: Subject) -> None:
    """In the sampling loop a text is the same whatever the batch size"""
    parts = _parts(subject)
    steps = 4 if parts.sampler.window is None else LENGTH
    texts = [
        generate(
            parts, unconditional(5, LENGTH), seed=3, steps=steps, batch_size=size, length=LENGTH
        )
        for size in (5, 2)
    ]
    require(texts[0] == texts[1], "texts drawn five and two at a time differ")


def _parts(subject: Subject) -> SamplingParts:
    grid = subject.registry.find("grid", "samplers:linear")
    return SamplingParts(
        space=subject.space,
        schedule=subject.parts.part("schedule"),
        denoise=subject.denoise,
        sampler=subject.built,
        grid=subject.make(grid, subject.parts),
    )


@check(KIND)
def ends_on_the_prediction(subject: Subject) -> None:
    """Rows whose next level is clean end on the predicted x0, whatever their neighbours do"""
    levels = ladder(subject)
    for ends in (torch.arange(ROWS) < ROWS // 2, torch.ones(ROWS, dtype=torch.bool)):
        walk = Walk(subject, subject.built)
        walk.step(levels[0], levels[1], noise(0))
        target = rows.where(ends, clean(levels[1].alpha), levels[2])
        prediction = walk.step(levels[1], target, noise(1))
        x = walk.value[0]
        finite(x, "x after a step that ends clean")
        space = subject.space
        if isinstance(space.corruption, GaussianCorruption):
            agree(x[ends], prediction.x0_step[ends], "where it ended and the prediction", 1e-4)
        tokens = space.decode(x, prediction.query)[ends]
        require((tokens < space.vocab_size).all(), "a row that ended clean holds no token")


@check(KIND)
def hands_on_what_is_fed_back(subject: Subject) -> None:
    """The denoiser first gets the row's previous, and its feedback becomes the next one"""
    seen: list[Any] = []

    class Watch(CountingDenoise):
        def __call__(self, x: Tensor, level: Level, previous: Any, known: Any) -> Prediction:
            seen.append(previous)
            prediction = super().__call__(x, level, previous, known)
            # a model without self-conditioning feeds back the very tensor that it was given
            return replace(prediction, feedback=copied(prediction.feedback))

    walk = Walk(subject, subject.built, Watch(subject.denoise))
    levels, before = ladder(subject), walk.value[2]
    walk.step(levels[0], levels[1], noise(0))
    require(seen and seen[0] is before, "its first evaluation does not get previous as given")
    last = seen[-1]
    require(walk.value[2] is not last, "it hands its last previous on in place of the feedback")


@check(KIND)
def counts_its_evaluations(subject: Subject) -> None:
    """evaluations says how often a step calls the denoiser, for a row's last step as well"""
    levels = ladder(subject)
    for ends in (False, True):
        counting = CountingDenoise(subject.denoise)
        walk = Walk(subject, subject.built, counting)
        for step in range(3):
            before = counting.rows
            there = clean(levels[0].alpha) if ends and step == 2 else levels[step + 1]
            walk.step(levels[step], there, noise(step))
        last = torch.full((ROWS,), ends)
        said = int(subject.built.evaluations(last).sum())
        took = counting.rows - before
        what = "a last step" if ends else "a step"
        require(said == took, f"{what} of {ROWS} rows took {took} evaluations, not {said}")


@check(KIND)
def reaches_a_point_mass(subject: Subject) -> None:
    """If the denoiser always says one text, that text comes out"""
    space = subject.space
    ids = random_ids(space)
    queries = subject.oracle
    x0 = space.embed(ids)

    class Certain(Denoise):
        def start(self, x: Tensor) -> Any:
            return ()

        def __call__(self, x: Tensor, level: Level, previous: Any, known: Any) -> Prediction:
            mean, lse = space.read(queries[ids])
            exact = x0 if x0.shape == mean.shape else mean
            return Prediction(exact, queries[ids], lse, mean, ())

    walk = Walk(subject, subject.built, Certain())
    levels = [*ladder(subject, 8), clean(start(subject))]
    for step, (here, there) in enumerate(pairwise(levels)):
        prediction = walk.step(here, there, noise(step))
    x = walk.value[0]
    agree(space.decode(x, prediction.query), ids, "the text and what came out")
    if isinstance(space.corruption, GaussianCorruption):
        agree(x, x0, "the text's embedding and where it ended", 1e-3)


def _gaussian(subject: Subject) -> Sampler:
    """The sampler. Raises NotApplicable if it does not run on Gaussian noise."""
    if not isinstance(subject.space.corruption, GaussianCorruption):
        raise NotApplicable("it does not run on Gaussian noise")
    sampler: Sampler = subject.built
    return sampler


def _exact(x: Tensor, level: Level, previous: Any) -> Prediction:
    """The denoiser of the Gaussian token."""
    alpha, sigma = level.like(x)
    s2 = (sigma / alpha) ** 2
    x0 = M + C**2 / (C**2 + s2) * (x / alpha - M)
    return Prediction(x0, x0, x0[..., 0], x0, previous)


def _walk(sampler: Sampler, x: Tensor, s: Tensor, preserving: bool) -> Tensor:
    """``x`` (over alpha, float64) stepped through the ratios ``s``; 0 is the clean level."""
    alpha = torch.rsqrt(1.0 + s * s) if preserving else torch.ones_like(s)
    level = [
        Level(a.expand(len(x)), (a * ratio).expand(len(x)))
        for a, ratio in zip(alpha, s, strict=True)
    ]
    x = x * alpha[0]
    state = sampler.init(x)
    for step, (here, there) in enumerate(pairwise(level)):
        key = Noise.keyed(1, torch.arange(len(x)), step)
        now = Step.between(x, here, there, key, torch.zeros_like(x), step, len(s) - 1)
        x, _, state = sampler.step(_exact, x, now, state)
    return x / alpha[-1]


@check(KIND)
def order_as_claimed(subject: Subject) -> None:
    """Where it provides order-k, its error on the exact test-bed falls as the k-th power"""
    claims = [name for name in subject.component.provides if name.startswith("order-")]
    if not claims:
        raise NotApplicable("claims no order of convergence")
    sampler, claimed = _gaussian(subject), int(claims[0].removeprefix("order-"))
    high, low = 8.0, 0.2
    first = torch.linspace(-2.0, 2.0, 7, dtype=torch.float64)[:, None, None]
    exact = M + (first * high - M) * math.sqrt((C**2 + low**2) / (C**2 + high**2))
    errors = []
    for n in (64, 128):
        s = torch.logspace(math.log10(high), math.log10(low), n + 1, dtype=torch.float64)
        errors.append((_walk(sampler, first * high, s, True) - exact).abs().max().item())
    order = math.log2(errors[0] / max(errors[1], 1e-300))
    require(
        order > claimed - 0.35,
        f"it claims order {claimed}; from 64 to 128 steps its error fell from {errors[0]:.2g} "
        f"to {errors[1]:.2g}, an order of {order:.2f}",
    )


@check(KIND)
def reaches_the_distribution(subject: Subject) -> None:
    """From the prior it reaches a Gaussian token's mean and standard deviation"""
    sampler, high = _gaussian(subject), 30.0
    key = Noise.keyed(4, torch.arange(32), 0)
    x = M + math.sqrt(C**2 + high**2) * key.normal(0, (64, 1), torch.float64)
    s = torch.logspace(math.log10(high), -2, 96, dtype=torch.float64)
    for preserving in (False, True):
        end = _walk(sampler, x, torch.cat((s, s.new_zeros(1))), preserving)
        mean, deviation = end.mean().item(), end.std().item()
        require(
            abs(mean - M) < 0.06 and abs(deviation / C - 1.0) < 0.1,
            f"it reached mean {mean:.3f} and standard deviation {deviation:.3f}, not {M} and {C}",
        )


@check(KIND)
def guidance_may_move_its_target(subject: Subject) -> None:
    """It steps towards x0_step, not towards x0_mean, and predicts from where it came"""
    _gaussian(subject)
    inner = subject.denoise

    class Moved(CountingDenoise):
        def __call__(self, x: Tensor, level: Level, previous: Any, known: Any) -> Prediction:
            prediction = inner(x, level, previous, known)
            return replace(prediction, x0_step=prediction.x0_step + 100.0)

    plain, moved = Walk(subject, subject.built), Walk(subject, subject.built, Moved(inner))
    levels = ladder(subject)
    for walk in (plain, moved):
        walk.step(levels[0], levels[1], noise(0))
    further = (moved.value[0] - plain.value[0]).mean(dim=(1, 2))
    require((further > 1.0).all(), "moving x0_step by 100 did not move where it stepped")
