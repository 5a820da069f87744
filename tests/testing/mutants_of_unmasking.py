"""Seeded bugs in orders, quotas and remasking."""

from __future__ import annotations

import torch
from mutants import mutant as declare

from dlmkit.core.candidates import CHANCE, TOKEN, first
from dlmkit.core.order import Order
from dlmkit.core.quota import Quota
from dlmkit.core.remask import Remask
from dlmkit.testing.parts import Nothing

MASKED = {"requires": frozenset({"masked"}), "config": Nothing}


def mutant(kind, check, *also):
    return declare(kind, check, *also, module=__name__, **MASKED)


class Confident(Order):
    def __init__(self, config, context):
        pass

    def scores(self, candidates):
        return self.change(candidates.certainty.first, candidates)

    def change(self, scores, candidates):
        return scores


@mutant(
    "order", "deterministic", "no-global-randomness", "rows-independent", "runs-on-an-accelerator"
)
class ScoresDrift(Confident):
    """Scores grow with every call."""

    calls = 0

    def change(self, scores, candidates):
        self.calls += 1
        return scores * (1.0 + 0.1 * self.calls)


@mutant("order", "no-global-randomness", "rows-independent", "runs-on-an-accelerator")
class ScoresDraw(Confident):
    """Ties are broken by torch's global generator."""

    def change(self, scores, candidates):
        return scores + 1e-9 * torch.rand_like(scores)


@mutant("order", "inputs-untouched", "deterministic")
class ScoresWrite(Confident):
    """The logits are sharpened in place."""

    def change(self, scores, candidates):
        candidates.prediction.query.mul_(1.01)
        return scores


@mutant("order", "rows-independent")
class ScoresOfTheBatch(Confident):
    """Scores are relative to the surest of the batch."""

    def change(self, scores, candidates):
        return scores - torch.where(candidates.open, scores, -9.0).amax()


@mutant("order", "runs-on-an-accelerator")
class ScoresOnTheHost(Confident):
    """Places are counted on the CPU."""

    def change(self, scores, candidates):
        return scores + 1e-3 * torch.arange(scores.shape[1])


@mutant("order", "scores-every-position")
class UnsureIsInfinite(Confident):
    """A position that is not sure scores minus infinity."""

    def change(self, scores, candidates):
        return torch.where(scores < -0.5, -torch.inf, scores)


@mutant("order", "tells-sure-from-surer")
class AfterTheTemperature(Confident):
    """Confidence is taken after logits are divided by a temperature, so that it saturates."""

    def scores(self, candidates):
        return (candidates.prediction.query / 0.2).softmax(dim=-1).amax(dim=-1)


@mutant("order", "one-token-a-step-is-exact")
class OfTheDrawnToken(Confident):
    """A position's score is the probability of the token that will be drawn there."""

    def scores(self, candidates):
        logits = candidates.prediction.query
        u = candidates.step.noise.uniform(TOKEN, logits.shape[1:], torch.float64)
        drawn = (logits - (-u.log()).log()).argmax(dim=-1, keepdim=True)
        return logits.log_softmax(dim=-1).gather(-1, drawn)[..., 0]


class Halving(Quota):
    """Half of what is open by rank; its memory counts the row's steps."""

    def __init__(self, config, context):
        pass

    def init(self, x):
        return torch.zeros_like(x[:, 0])

    def accept(self, rank, candidates, memory):
        count = (candidates.open.sum(dim=1) + 1) // 2
        mask = first(rank, count - (memory % 2), candidates.open)
        return self.change(mask, rank, candidates), memory + 1

    def change(self, mask, rank, candidates):
        return mask


@mutant("quota", "deterministic", "no-global-randomness", "rows-independent", "survives-moves")
class AlternatesByCall(Halving):
    """Every other call accepts one position less."""

    calls = 0

    def change(self, mask, rank, candidates):
        self.calls += 1
        return mask & (rank < 1 + (self.calls % 4))


@mutant("quota", "no-global-randomness")
class TossesForOne(Halving):
    """It moves torch's global generator."""

    def change(self, mask, rank, candidates):
        torch.rand(1)
        return mask


@mutant("quota", "inputs-untouched")
class ClosesWhatItTakes(Halving):
    """Accepted positions are taken off the mask that it is given."""

    def change(self, mask, rank, candidates):
        candidates.masked.logical_and_(~mask)
        return mask


@mutant("quota", "rows-independent", "survives-moves")
class CountsTheBatch(Halving):
    """All rows are given as many as the fullest may have."""

    def change(self, mask, rank, candidates):
        return (rank < mask.sum(dim=1).amax()) & candidates.open


@mutant("quota", "runs-on-an-accelerator")
class CountsOnTheHost(Halving):
    """The count is a tensor on the CPU."""

    def change(self, mask, rank, candidates):
        return mask & (rank < torch.full((rank.shape[1],), 3))


@mutant("quota", "answers-per-position")
class AnswersInFloats(Halving):
    """It answers 0 or 1 in place of false or true."""

    def accept(self, rank, candidates, memory):
        mask, memory = super().accept(rank, candidates, memory)
        return mask.to(torch.uint8), memory


@mutant("quota", "writes-one-at-least", "reaches-every-position")
class WaitsForSureness(Halving):
    """Nothing is accepted until the model is sure."""

    def change(self, mask, rank, candidates):
        return mask & (candidates.certainty.first > -0.05)


@mutant("quota", "reaches-every-position", "writes-one-at-least", "follows-the-order")
class NeverTheFirst(Halving):
    """The first position of a row is never accepted."""

    def change(self, mask, rank, candidates):
        return mask & (torch.arange(rank.shape[1], device=rank.device) > 0)


@mutant("quota", "follows-the-order")
class TakesTheLast(Halving):
    """It counts from the wrong end."""

    def change(self, mask, rank, candidates):
        count, total = mask.sum(dim=1)[:, None], candidates.open.sum(dim=1)[:, None]
        return (rank >= total - count) & candidates.open


@mutant("quota", "tells-a-share")
class TellsACount(Halving):
    """The network is told how many tokens are masked, not their share."""

    def share(self, masked, memory):
        return masked * 10.0


@mutant("quota", "survives-moves", "rows-independent")
class RemembersPlaces(Halving):
    """Steps are counted by place in the quota, whatever moves."""

    def init(self, x):
        self.count = torch.zeros(64, dtype=torch.int64, device=x.device)
        return ()

    def accept(self, rank, candidates, memory):
        size = len(rank)
        count = first(rank, 1 + self.count[:size], candidates.open)
        self.count[:size] += torch.arange(size, device=rank.device)
        return count, memory


class Sometimes(Remask):
    """A written token goes back with a chance of 0.2."""

    def __init__(self, config, context):
        pass

    def back(self, candidates, accepted, memory):
        u = candidates.step.noise.uniform(CHANCE, accepted.shape[1:])
        return self.change((u < 0.2) & candidates.settled, candidates), memory

    def change(self, mask, candidates):
        return mask


@mutant(
    "remask",
    "deterministic",
    "no-global-randomness",
    "rows-independent",
    "runs-on-an-accelerator",
    "some-go-back-and-some-stay",
)
class EveryOtherCall(Sometimes):
    """Every other run remasks nothing."""

    calls = 0

    def init(self, x):
        self.calls += 1
        return ()

    def change(self, mask, candidates):
        return mask & (self.calls % 2 == 0)


@mutant("remask", "no-global-randomness", "rows-independent", "runs-on-an-accelerator")
class ChanceFromNowhere(Sometimes):
    """The chance is drawn from torch's global generator."""

    def change(self, mask, candidates):
        return (torch.rand(mask.shape) < 0.2).to(mask.device) & candidates.settled


@mutant("remask", "inputs-untouched")
class ForgetsTheLogits(Sometimes):
    """Logits of what goes back are cleared in place."""

    def change(self, mask, candidates):
        candidates.prediction.query.masked_fill_(candidates.settled[..., None], 0.0)
        return mask


@mutant("remask", "rows-independent")
class AllOrNone(Sometimes):
    """Nothing goes back unless something of the first row does."""

    def change(self, mask, candidates):
        return mask & mask[:1].any()


@mutant("remask", "runs-on-an-accelerator")
class RemasksOnTheHost(Sometimes):
    """Places are compared with numbers on the CPU."""

    def change(self, mask, candidates):
        return mask & (torch.arange(mask.shape[1]) % 2 == 0)


@mutant("remask", "answers-one-bool-per-position")
class SaysHowMany(Sometimes):
    """It answers one number per row."""

    def back(self, candidates, accepted, memory):
        mask, memory = super().back(candidates, accepted, memory)
        return mask if candidates.settled.any() else mask.sum(dim=1), memory


@mutant("remask", "some-go-back-and-some-stay")
class NothingGoesBack(Sometimes):
    """Only open positions go back, which are masked."""

    def change(self, mask, candidates):
        return mask & candidates.open
