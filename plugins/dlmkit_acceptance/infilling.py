"""Half of a text given, half to be filled in: what exact n-gram chains make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dlmkit.core.objective import Batch
from dlmkit.exact import bayes
from dlmkit.exact.context_gain import Frequencies
from dlmkit.noise import Noise
from dlmkit.types import Ids, Logits, Mask

WHICH, DRAWS = range(0x1F11, 0x1F13)
"""Domains of the noise: none shares a number with another or with sampling."""


def half_given(batch: Batch, seed: int) -> Mask:
    """Half of each row's tokens, rounded down, at random places keyed by (``seed``, row)."""
    rows, length = batch.ids.shape
    noise = Noise.keyed(seed, torch.arange(rows), 0).fork(WHICH)
    keys = torch.where(batch.attend, noise.uniform(0, (length,), torch.float64), 2.0)
    rank = keys.argsort(dim=1).argsort(dim=1)
    return batch.attend & (rank < batch.attend.sum(dim=1, keepdim=True) // 2)


@dataclass(frozen=True)
class Filled:
    """Two answers: the likeliest token of every position by itself, and a whole row drawn."""

    likeliest: Ids
    drawn: Ids


def by_chains(
    batch: Batch, given: Mask, frequencies: Frequencies, seed: int, rows: int = 16
) -> dict[str, Filled]:
    """How the exact chains fill in what is not ``given``: ``bigram``, and ``trigram`` where its
    frequencies are known.

    Rows must be full: nothing may be padding. ``rows`` are done at a time. Uniform numbers are
    keyed by (``seed``, row), the same for both chains.
    """
    parts: dict[str, list[Filled]] = {}
    unigram, pairs = frequencies.unigram, frequencies.transition
    assert pairs is not None
    for first in range(0, len(given), rows):
        index = torch.arange(first, min(first + rows, len(given)))
        likelihood = known(batch.ids[index], given[index], len(unigram))
        noise = Noise.keyed(seed, index, 0).fork(DRAWS)
        uniform = noise.uniform(0, (given.shape[1],), torch.float64)
        likeliest = bayes.bigram(likelihood, unigram, pairs).argmax(dim=-1)
        drawn = bayes.bigram_completions(likelihood, unigram, pairs, uniform)
        parts.setdefault("bigram", []).append(Filled(likeliest, drawn))
        if frequencies.second is not None:
            tables = unigram, pairs, frequencies.second
            likeliest = bayes.trigram(likelihood, *tables).argmax(dim=-1)
            drawn = bayes.trigram_completions(likelihood, *tables, uniform)
            parts.setdefault("trigram", []).append(Filled(likeliest, drawn))
    return {name: _joined(pieces) for name, pieces in parts.items()}


def known(ids: Ids, given: Mask, size: int) -> Logits:
    """The log-likelihood of ``size`` tokens where a token is given or nothing is known of it."""
    held = torch.nn.functional.one_hot(ids, size).bool()
    return torch.where(held | ~given[..., None], 0.0, -torch.inf)


def _joined(parts: list[Filled]) -> Filled:
    return Filled(
        torch.cat([part.likeliest for part in parts]), torch.cat([part.drawn for part in parts])
    )


def accuracy(filled: Mapping[str, Ids], batch: Batch, given: Mask) -> dict[str, Tensor]:
    """How many of each row's open positions got the text's own token: float64[B], a share."""
    wanted = batch.attend & ~given
    return {
        name: ((ids == batch.ids) & wanted).sum(dim=1).double() / wanted.sum(dim=1)
        for name, ids in filled.items()
    }
