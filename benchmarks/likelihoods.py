"""Nats and units of every single text, and whether two runs' texts are equivalent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dlmkit.bench.measure import Outcome
from dlmkit.exact.intervals import Interval, jackknife, percentile
from dlmkit.model import Model
from dlmkit.plugin import Part
from dlmkit_grammar.data import GrammarData
from dlmkit_grammar.metric import GrammarScore, floored
from dlmkit_markov.data import MarkovData
from dlmkit_markov.metric import ExactScore
from dlmkit_text.metrics import NgramJudgeMetric

MARGIN = 0.02
"""Nats of NLL, and of entropy, within which two runs are called equivalent."""

DRAWS = 1000
PARTS = 200
"""Of texts, each left out once for the interval of an entropy."""
Scores = Float[Tensor, "B 2"]
"""Nats and the number of units (tokens, words) that they are of, a text each."""


def scorer(subject: Model) -> Callable[[Sequence[str]], Scores]:
    """Exact likelihoods where the language is known, else the n-gram judge's of its tokens."""
    if isinstance(subject.data, MarkovData):
        exact: ExactScore = subject.assembly.build("metric", Part(use="markov:exact"))
        exact.fit(subject.data)
        return lambda texts: _pairs(
            [(n * exact.length, exact.length) for n in exact.per_text(exact.ids(texts)).tolist()]
        )
    if isinstance(subject.data, GrammarData):
        grammar: GrammarScore = subject.assembly.build("metric", Part(use="grammar:grammar"))
        grammar.fit(subject.data)
        return lambda texts: _pairs([_grammar(grammar, text) for text in texts])
    judge: NgramJudgeMetric = subject.assembly.build(
        "metric", Part(use="text:ngram-judge", options={"unit": "tokens", "order": 4})
    )
    judge.fit(subject.data)
    return lambda texts: _pairs([_judged(judge, text) for text in texts])


def _pairs(values: Sequence[tuple[float, int]]) -> Scores:
    return torch.tensor(values, dtype=torch.float64).view(-1, 2)


def _grammar(metric: GrammarScore, text: str) -> tuple[float, int]:
    sentences, _ = metric.split(text)
    nats = sum(floored(sentence, metric.grammar, metric.floor) for sentence in sentences)
    return nats, sum(len(sentence.words) for sentence in sentences)


def _judged(judge: NgramJudgeMetric, text: str) -> tuple[float, int]:
    row = judge.alphabet.encode(judge.cut(text))
    return (-float(judge.model.log_probabilities(row).sum()), len(row)) if len(row) else (0.0, 0)


def agreement(subject: Model, texts: Sequence[str]) -> tuple[int, int] | None:
    """(sentences that agree, valid ones) of a model of the grammar; None for any other."""
    if not isinstance(subject.data, GrammarData):
        return None
    metric: GrammarScore = subject.assembly.build("metric", Part(use="grammar:grammar"))
    metric.fit(subject.data)
    sentences = [s for text in texts for s in metric.split(text)[0] if s.pattern is not None]
    return sum(s.log_probability > -math.inf for s in sentences), len(sentences)


@dataclass(frozen=True)
class Gap:
    """``value`` of one run minus the other's, in nats; ``interval`` holds both 95 % bounds."""

    value: float
    interval: Interval

    @property
    def equivalent(self) -> bool:
        """Two one-sided tests, each at 5 %: the gap is smaller than the margin either way."""
        return self.interval.low > -MARGIN and self.interval.high < MARGIN

    @property
    def no_worse(self) -> bool:
        """The upper of the two tests alone, of a number of which less is better."""
        return self.interval.high < MARGIN

    def words(self) -> str:
        """The gap with its bounds and the outcome of the tests."""
        told = "equivalent" if self.equivalent else ("no worse" if self.no_worse else "not shown")
        low, high = self.interval
        return f"{self.value:+.4f} (95 % bounds {low:+.4f}, {high:+.4f}): {told}"


def nll_gap(scores: Scores, reference: Scores, seed: int = 0) -> Gap:
    """Of the nats a unit of all texts; both runs' text i are resampled together."""
    both = torch.cat((scores, reference), dim=1)
    sums = torch.cat((both.sum(dim=0)[None], _weights(len(both), seed) @ both))
    gaps = sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3]
    return Gap(float(gaps[0]), percentile(gaps[1:], 0.90))


def entropy_gap(outcome: Outcome, reference: Outcome, order: int = 1) -> Gap:
    """Of the pooled n-grams of tokens; both runs' text i are left out together."""
    count = len(outcome.samples)
    part = torch.arange(count) % min(PARTS, count)
    kept = 1.0 - torch.nn.functional.one_hot(part).T.double()
    kept = torch.cat((torch.ones_like(kept[:1]), kept))
    entropies = [_entropy(kept @ _counts(run, order)) for run in (outcome, reference)]
    value, *left = (entropies[0] - entropies[1]).tolist()
    return Gap(value, jackknife(value, left, count, 0.90).interval)


def _counts(outcome: Outcome, order: int) -> Float[Tensor, "B K"]:
    grams = [
        list(zip(*(sample.ids[i:] for i in range(order)), strict=False))
        for sample in outcome.samples
    ]
    index = {gram: i for i, gram in enumerate(sorted({g for row in grams for g in row}))}
    counts = torch.zeros(len(grams), len(index), dtype=torch.float64)
    for row, own in zip(counts, grams, strict=True):
        row += torch.bincount(torch.tensor([index[g] for g in own]), minlength=len(index))
    return counts


def _entropy(counts: Float[Tensor, "R K"]) -> Float[Tensor, "R"]:
    share = counts / counts.sum(dim=1, keepdim=True)
    return -torch.xlogy(share, share).sum(dim=1)


def _weights(texts: int, seed: int) -> Float[Tensor, "draws B"]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(texts, (DRAWS, texts), generator=generator)
    counts = torch.zeros(DRAWS, texts, dtype=torch.float64)
    return counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))


def decoded(subject: Model, outcome: Outcome) -> list[str]:
    """The texts of a run."""
    return [subject.assembly.tokenizer.decode(sample.ids) for sample in outcome.samples]
