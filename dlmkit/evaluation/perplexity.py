"""Zero-shot perplexity of text files: windows that slide over a text, each token scored once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from dlmkit.errors import DataError, UsageError
from dlmkit.evaluation.score import Scorer
from dlmkit.exact.intervals import Interval, percentile, resampled_means


@dataclass(frozen=True)
class Protocol:
    """The usual sliding window, named.

    A window has at most ``context`` tokens, and each scores the last ``stride`` of them given
    those before; the first scores all of its own. With ``stride`` = ``context`` windows do not
    overlap. ``likelihood`` says what a score is. Every file is a text of its own.
    """

    context: int
    stride: int
    likelihood: str
    seed: int


@dataclass(frozen=True)
class TextWindow:
    """Tokens ``start`` to ``stop`` of a text, those from ``scored`` on to be scored."""

    start: int
    scored: int
    stop: int


def windows(tokens: int, context: int, stride: int) -> Iterator[TextWindow]:
    """The windows of a text of ``tokens`` tokens, which share out all of them."""
    stop = scored = 0
    while stop < tokens:
        stop = min(tokens, context if stop == 0 else stop + stride)
        yield TextWindow(max(0, stop - context), scored, stop)
        scored = stop


def scored(scorer: Scorer, ids: Sequence[int], window: TextWindow) -> float:
    """-log p of a window's tokens, in nats, or a bound; its draws are keyed by its own tokens."""
    return scorer.keyed(ids[window.start : window.stop], window.scored - window.start)


@dataclass(frozen=True)
class Perplexity:
    """Of some text, with 95 % intervals by resampling windows.

    ``nats_per_token`` and ``bits_per_byte`` are means over all tokens and all bytes (UTF-8, as the
    file has them); the perplexity per token depends on the tokenizer, the bits per byte do not.
    """

    protocol: Protocol
    files: int
    tokens: int
    bytes: int
    windows: int
    nats_per_token: float
    nats_per_token_interval: Interval
    perplexity: float
    perplexity_interval: Interval
    bits_per_byte: float
    bits_per_byte_interval: Interval


def perplexity(
    scorer: Scorer,
    texts: Sequence[tuple[str, Sequence[int]]],
    context: int,
    stride: int,
    say: Callable[[str], None] = lambda line: None,
) -> Perplexity:
    """The perplexity of ``texts``, each with its token ids.

    Raises UsageError for a stride longer than the context and DataError if there is no token.
    """
    if not 1 <= stride <= context:
        raise UsageError(f"--stride {stride}: expected from 1 to the context, {context}")
    counts, nats = [], []
    for _, ids in texts:
        for window in windows(len(ids), context, stride):
            nats.append(scored(scorer, ids, window))
            counts.append(window.stop - window.scored)
            if len(counts) % 100 == 0:
                say(f"{len(counts)} windows, {sum(nats) / sum(counts):.4f} nats per token so far")
    size = sum(len(text.encode()) for text, _ in texts)
    if not counts:
        raise DataError("the texts hold no token: there is nothing to score")
    total = torch.tensor(nats, dtype=torch.float64)
    per_text = torch.tensor(counts, dtype=torch.float64)
    mean, low, high = _mean(total, per_text)
    bits = float(per_text.sum()) / size / math.log(2.0)
    return Perplexity(
        protocol=Protocol(context, stride, scorer.method, scorer.options.seed),
        files=len(texts),
        tokens=int(per_text.sum()),
        bytes=size,
        windows=len(counts),
        nats_per_token=mean,
        nats_per_token_interval=Interval(low, high),
        perplexity=math.exp(mean),
        perplexity_interval=Interval(math.exp(low), math.exp(high)),
        bits_per_byte=mean * bits,
        bits_per_byte_interval=Interval(low * bits, high * bits),
    )


def _mean(nats: torch.Tensor, tokens: torch.Tensor) -> tuple[float, float, float]:
    """Nats a token, and its interval: windows are drawn anew, with their tokens."""
    means = resampled_means(torch.stack((nats, tokens), dim=1))
    interval = percentile(means[:, 0] / means[:, 1])
    return float(nats.sum() / tokens.sum()), interval.low, interval.high
