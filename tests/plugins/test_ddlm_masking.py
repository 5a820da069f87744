"""Span masking: uniform share, whole runs, one noised token left."""

import torch

from dlmkit.core.context import BuildContext
from dlmkit.noise import Noise
from dlmkit_ddlm import configs
from dlmkit_ddlm.masking import SpanMasking

ROWS, L, SPAN = 4000, 24, 4


def test_spans():
    attend = torch.ones(ROWS, L, dtype=torch.bool)
    masking = SpanMasking(configs.Span(span=SPAN), BuildContext(length=L))
    given = masking.draw(attend, Noise.keyed(0, torch.arange(ROWS), 0))
    counts = torch.bincount(given.sum(1), minlength=L).double()
    assert len(counts) == L
    expected = ROWS / L
    assert ((counts - expected).square() / expected).sum() < 52.0  # chi-square, 23 df, 0.05 %
    edges = given.int().diff(dim=1).abs().sum(1).double().mean()
    scattered = torch.rand(ROWS, L) < 0.5
    assert edges < 0.5 * scattered.int().diff(dim=1).abs().sum(1).double().mean()


def test_padding_is_never_given():
    attend = torch.arange(L)[None] < (torch.arange(ROWS) % L + 1)[:, None]
    masking = SpanMasking(configs.Span(span=SPAN), BuildContext(length=L))
    given = masking.draw(attend, Noise.keyed(0, torch.arange(ROWS), 0))
    assert not (given & ~attend).any()
    assert ((attend & ~given).sum(1) >= 1).all()
