"""Samples beside real text and beside what character n-grams write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.core.tokenizer import PAD, UNKNOWN
from dlmkit.errors import UsageError
from dlmkit_text.configs import NgramEntropy, NgramJudge
from dlmkit_text.cut import held_out
from dlmkit_text.draws import NgramSampler
from dlmkit_text.metrics import NgramEntropyMetric, NgramJudgeMetric
from dlmkit_text.symbols import cutter


@dataclass(frozen=True)
class Row:
    """One writer: its name, its numbers by name, and its first text."""

    writer: str
    numbers: dict[str, float]
    example: str


def writers(data: Data) -> dict[str, NgramSampler]:
    """N-gram samplers of the training text: of characters, and of tokens that are longer."""
    made = {
        name: NgramSampler(data.texts("train"), order)
        for name, order in (("trigram", 3), ("bigram", 2), ("unigram", 1))
    }
    if any(len(piece) > 1 for piece in data.tokenizer.pieces() if piece not in (PAD, UNKNOWN)):
        cut = cutter("tokens", data.tokenizer)
        made["token bigram"] = NgramSampler(data.texts("train"), 2, cut)
    return made


def compare(data: Data, samples: Sequence[str], order: int = 6, seed: int = 0) -> list[Row]:
    """Human, model, trigram, bigram and unigram text under one character judge.

    Every writer gives as many texts as ``samples``, of the same lengths in characters. Raises
    UsageError if there are no samples or all are empty.
    """
    if not any(samples):
        raise UsageError("there is no text to compare: every sample is empty")
    context = BuildContext(length=1)
    judge = NgramJudgeMetric(NgramJudge(order=order), context)
    diversity = NgramEntropyMetric(NgramEntropy(), context)
    judge.fit(data)
    diversity.fit(data)
    texts = {"human": held_out(data, samples), "model": list(samples)}
    longest = max(map(len, samples))
    for name, sampler in writers(data).items():
        drawn = sampler.sample(len(samples), longest, seed)
        texts[name] = [text[: len(own)] for text, own in zip(drawn, samples, strict=True)]
    return [
        Row(name, {**judge.score(group), **diversity.score(group)}, group[0])
        for name, group in texts.items()
    ]
