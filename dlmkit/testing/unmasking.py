"""Checks of orders, quotas and remasking, on made-up beliefs and on an exact model of three tokens.

The exact model is a table of the probabilities of all texts of LENGTH tokens; it says of every
masked token what the visible ones leave of it.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.core.candidates import TOKEN, Candidates, ranks
from dlmkit.core.denoise import Prediction
from dlmkit.core.sampler import Step
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import categorical
from dlmkit.noise import Noise
from dlmkit.testing.compare import Exercise, agree, finite, pure, require
from dlmkit.testing.subject import Subject
from dlmkit.testing.suite import check

ROWS, LENGTH, STEPS = 6, 10, 8


class Beliefs(NamedTuple):
    """What the candidates of a step are made of, row-first."""

    logits: Tensor
    masked: Tensor
    log_p: Tensor
    written: Tensor
    noise: Noise


def beliefs(subject: Subject, rows: int = ROWS, length: int = LENGTH, step: int = 0) -> Beliefs:
    """Random logits, sharper in some rows; a third of the positions is written already."""
    noise = Noise.keyed(11, torch.arange(rows), step)
    logits = 3.0 * noise.fork(90).normal(0, (length, subject.space.vocab_size))
    masked = noise.fork(91).uniform(0, (length,)) > 0.35
    certain, written = (
        torch.log(0.01 + 0.98 * noise.fork(n).uniform(0, (length,))) for n in (92, 93)
    )
    return Beliefs(logits, masked, certain, written, noise)


def candidates(
    subject: Subject, held: Beliefs, index: int = 0, mask: int = -1, ids: Tensor | None = None
) -> Candidates:
    """The candidates of the step ``index``; every position that is masked is open."""
    logits, masked = held.logits, held.masked
    most = logits.argmax(dim=-1)
    ids = torch.where(masked, mask, most) if ids is None else ids
    share = torch.full_like(held.log_p[:, 0], 1.0 - index / STEPS)
    here, after = (Level(1.0 - m, m) for m in (share, (share - 1.0 / STEPS).clamp(min=0.0)))
    lse = logits.logsumexp(dim=-1)
    every = torch.full_like(most[:, 0], STEPS)
    return Candidates(
        space=subject.space,
        prediction=Prediction(most, logits, lse, most, (), log_p=held.log_p),
        ids=ids,
        masked=masked,
        open=masked,
        settled=~masked,
        written=torch.where(masked, 0.0, held.written),
        step=Step.between(ids, here, after, held.noise, (), index, STEPS),
        left=every - index,
        steps=every,
    )


def _by_confidence(now: Candidates) -> Tensor:
    return ranks(now.certainty.first, now.open, now.step.noise)


def _order(subject: Subject) -> Exercise:
    order = subject.built

    def call(*parts: Any) -> Tensor:
        now = candidates(subject, Beliefs(*parts))
        return torch.where(now.open, order.scores(now), 0.0)

    return Exercise(call, tuple(beliefs(subject)), 1e-5)


pure("order", _order)


@check("order")
def scores_every_position(subject: Subject) -> None:
    """It gives one finite number per open position"""
    held = beliefs(subject)
    scores = subject.built.scores(candidates(subject, held))
    require(scores.is_floating_point(), f"its scores' dtype is {scores.dtype}")
    require(scores.shape == held.masked.shape, f"its scores' shape is {tuple(scores.shape)}")
    finite(scores[held.masked], "scores of open positions")


@check("order")
def tells_sure_from_surer(subject: Subject) -> None:
    """Where it follows the prediction, ever surer positions keep an order: none saturates"""
    size = subject.space.vocab_size
    gaps = torch.tensor([3.0, 5.0, 8.0, 12.0, 16.0])
    logits = torch.zeros(1, len(gaps), size)
    logits[..., 1] = gaps
    every = torch.ones(1, len(gaps), dtype=torch.bool)
    fresh = torch.zeros(1, len(gaps))
    noise = Noise.keyed(0, torch.arange(1), 0)

    def scores(order: Tensor) -> Tensor:
        held = Beliefs(logits[:, order], every, fresh, fresh, noise)
        result: Tensor = subject.built.scores(candidates(subject, held))[0]
        return result

    there, back = torch.arange(len(gaps)), torch.arange(len(gaps)).flip(0)
    first, other = scores(there), scores(back).flip(0)
    if torch.equal(first.argsort(), other.argsort()):  # else it goes by place or by noise alone
        require(
            len(set(first.tolist())) == len(gaps),
            f"positions of rising confidence score {first.tolist()}: take the confidence from the "
            "undivided logits, and on a scale where 1 - p is not lost",
        )


@lru_cache
def _exact(size: int, length: int) -> tuple[Tensor, Tensor]:
    """(the probability of every text, log p of every token at every state), on the CPU."""
    noise = Noise.keyed(5, torch.arange(1), 0)
    joint = (1.5 * noise.normal(0, (size**length,), torch.float64))[0].softmax(dim=0)
    words = torch.tensor(list(itertools.product(range(size), repeat=length)))
    states = torch.tensor(list(itertools.product(range(size + 1), repeat=length)))
    fits = ((states[:, None] == words) | (states[:, None] == size)).all(dim=-1)
    weight = fits * joint
    tokens = torch.nn.functional.one_hot(words, size).double()
    p = torch.einsum("sw,wlv->slv", weight, tokens)
    return joint, p.log().clamp(min=-104.0)


@check("order")
def one_token_a_step_is_exact(subject: Subject) -> None:
    """With one token a step an exact model's texts have the model's distribution"""
    size, length, rows = 3, 3, 6000
    joint, answers = _exact(size, length)
    ids = torch.full((rows, length), size)
    power = (size + 1) ** torch.arange(length - 1, -1, -1)
    none = torch.zeros(rows, length)
    for step in range(length):
        logits = answers[(ids * power).sum(dim=1)].float()
        wide = torch.full((rows, length, subject.space.vocab_size), -104.0)
        wide[..., :size] = logits
        noise = Noise.keyed(1, torch.arange(rows), step)
        now = candidates(subject, Beliefs(wide, ids == size, none, none, noise), step, size, ids)
        rank = ranks(subject.built.scores(now), now.open, noise)
        u = noise.uniform(TOKEN, wide.shape[1:], torch.float64)
        ids = torch.where((rank == 0) & now.open, categorical(wide, u), ids)
    index = (ids * size ** torch.arange(length - 1, -1, -1)).sum(dim=1)
    share = torch.bincount(index, minlength=size**length).double() / rows
    gap = 0.5 * float((share - joint).abs().sum())
    require(gap < 0.05, f"its texts are {gap:.1%} away from the model's distribution")


def _quota(subject: Subject) -> Exercise:
    quota = subject.built

    def call(*parts: Any) -> Any:
        held = Beliefs(*parts)
        memory = quota.init(held.masked.long())
        result = []
        for index in range(3):
            noise = Noise(held.noise.key + index, device=held.noise.device)
            now = candidates(subject, held._replace(noise=noise), index)
            mask, memory = quota.accept(_by_confidence(now), now, memory)
            result.append(mask & now.open)
        return tuple(result)

    return Exercise(call, tuple(beliefs(subject)), 0.0)


pure("quota", _quota)


def _written(subject: Subject, held: Beliefs, quota: Any) -> list[Tensor]:
    """What is masked before every step, and in the end, as ``quota`` writes it."""
    masked, memory, course = held.masked, quota.init(held.masked.long()), []
    for index in range(LENGTH):
        course.append(masked)
        noise = Noise.keyed(11, torch.arange(len(masked)), index)
        now = candidates(subject, held._replace(masked=masked, noise=noise), min(index, STEPS - 1))
        accepted, memory = quota.accept(_by_confidence(now), now, memory)
        masked = masked & ~accepted
    return [*course, masked]


@check("quota")
def answers_per_position(subject: Subject) -> None:
    """It answers one bool per position"""
    held = beliefs(subject)
    now = candidates(subject, held)
    memory = subject.built.init(held.masked.long())
    mask, _ = subject.built.accept(_by_confidence(now), now, memory)
    require(mask.dtype == torch.bool, f"its answer's dtype is {mask.dtype}")
    require(mask.shape == held.masked.shape, f"its answer's shape is {tuple(mask.shape)}")


@check("quota")
def writes_one_at_least(subject: Subject) -> None:
    """With its example's options a row with open positions is given one at every step"""
    course = _written(subject, beliefs(subject), subject.built)
    for before, after in itertools.pairwise(course):
        stuck = before.any(dim=1) & (before == after).all(dim=1)
        require(not stuck.any(), "a row with open positions is given none: a step for nothing")


@check("quota")
def reaches_every_position(subject: Subject) -> None:
    """With its example's options every position is written in as many steps as there are"""
    held = beliefs(subject)
    course = _written(subject, held._replace(masked=torch.ones_like(held.masked)), subject.built)
    require(not course[-1].any(), f"after {LENGTH} steps some of {LENGTH} positions are masked")


@check("quota")
def follows_the_order(subject: Subject) -> None:
    """Of equally certain positions, those that are first in the order are accepted"""
    held = beliefs(subject)
    alike = held.logits[:, :1].expand_as(held.logits)
    now = candidates(subject, held._replace(logits=alike, masked=torch.ones_like(held.masked)))
    place = torch.arange(LENGTH).expand_as(now.ids)
    memory = subject.built.init(now.ids)
    for rank in (place, place.flip(1)):
        mask, _ = subject.built.accept(rank, now, memory)
        worst = torch.where(mask, rank, -1).amax(dim=1)
        best = torch.where(mask, LENGTH, rank).amin(dim=1)
        require((worst < best).all(), "it passes over a position that comes before one it accepts")


@check("quota")
def tells_a_share(subject: Subject) -> None:
    """What the network is told is a share of masked tokens in each row, or the grid's own level"""
    masked = torch.linspace(0.1, 1.0, ROWS)
    share = subject.built.share(masked, subject.built.init(torch.zeros(ROWS, LENGTH).long()))
    if share is not None:
        require(share.shape == (ROWS,), f"its shape is {tuple(share.shape)}")
        require(((share >= 0.0) & (share <= 1.0)).all(), f"it tells {share.tolist()}")


@check("quota")
def survives_moves(subject: Subject) -> None:
    """Rows that change places, or are left out, go on as before, its memory included"""
    quota, held, index = subject.built, beliefs(subject), torch.tensor([4, 0, 3])
    stay, move = quota.init(held.masked.long()), quota.init(held.masked.long())
    for step in range(4):
        if step == 2:
            move = rows.take(move, index)
        noise = Noise.keyed(11, torch.arange(ROWS), step)
        every = held._replace(noise=noise)
        some = rows.take(every, index) if step >= 2 else every
        a, b = (candidates(subject, value, step) for value in (every, some))
        first, stay = quota.accept(_by_confidence(a), a, stay)
        other, move = quota.accept(_by_confidence(b), b, move)
        expected = first[index] if step >= 2 else first
        agree(other & b.open, expected & b.open, f"positions accepted at step {step}")


def _remask(subject: Subject) -> Exercise:
    rule = subject.built

    def call(*parts: Any) -> Any:
        held = Beliefs(*parts)
        memory = rule.init(held.masked.long())
        result = []
        for index in range(2, 5):
            noise = Noise(held.noise.key + index, device=held.noise.device)
            now = candidates(subject, held._replace(noise=noise), index)
            mask, memory = rule.back(now, (_by_confidence(now) < 2) & now.open, memory)
            result.append(mask & now.settled)
        return tuple(result)

    return Exercise(call, tuple(beliefs(subject)), 0.0)


pure("remask", _remask)


@check("remask")
def answers_one_bool_per_position(subject: Subject) -> None:
    """It answers one bool per position, at a row's first step too, where nothing is written"""
    held = beliefs(subject)
    held = held._replace(masked=torch.ones_like(held.masked))
    now = candidates(subject, held)
    memory = subject.built.init(held.masked.long())
    mask, _ = subject.built.back(now, torch.zeros_like(held.masked), memory)
    require(mask.dtype == torch.bool, f"its answer's dtype is {mask.dtype}")
    require(mask.shape == held.masked.shape, f"its answer's shape is {tuple(mask.shape)}")


@check("remask")
def some_go_back_and_some_stay(subject: Subject) -> None:
    """With its example's options some written tokens go back over a run, and not all of them"""
    held = beliefs(subject, rows=64)
    memory = subject.built.init(held.masked.long())
    back, settled = torch.tensor(0), torch.tensor(0)
    for step in range(2, STEPS - 1):
        now = candidates(subject, beliefs(subject, rows=64, step=step), step)
        mask, memory = subject.built.back(now, (_by_confidence(now) < 1) & now.open, memory)
        back, settled = back + (mask & now.settled).sum(), settled + now.settled.sum()
    require(back > 0, "nothing ever goes back")
    require(back < settled, "everything goes back at every step")
