"""Checks of maskings."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmkit.noise import Noise
from dlmkit.testing.compare import Exercise, agree, pure, require
from dlmkit.testing.subject import Subject
from dlmkit.testing.suite import check

KIND = "masking"
ROWS, LENGTH = 64, 12


def attend() -> Tensor:
    """Rows of 1 to LENGTH tokens, padding after them."""
    return torch.arange(LENGTH) < (LENGTH - torch.arange(ROWS) % LENGTH)[:, None]


def noise(step: int = 0) -> Noise:
    """Noise keyed by row."""
    return Noise.keyed(2, torch.arange(ROWS), step)


pure(KIND, lambda subject: Exercise(subject.built.draw, (attend(), noise()), 0.0))


@check(KIND)
def gives_a_mask(subject: Subject) -> None:
    """It gives one bool per position"""
    given = subject.built.draw(attend(), noise())
    require(given.dtype == torch.bool, f"its dtype is {given.dtype}")
    require(given.shape == (ROWS, LENGTH), f"its shape is {tuple(given.shape)}")


@check(KIND)
def keeps_a_noised_position(subject: Subject) -> None:
    """Every row keeps a token that is not given"""
    for step in range(8):
        left = attend() & ~subject.built.draw(attend(), noise(step))
        full = (~left.any(dim=1)).nonzero()[:, 0].tolist()
        require(not full, f"rows {full[:4]} are given entirely")


@check(KIND)
def padding_is_not_given(subject: Subject) -> None:
    """Padding is never given"""
    for step in range(8):
        given = subject.built.draw(attend(), noise(step))
        require(not (given & ~attend()).any(), "positions of padding are marked as given")


@check(KIND)
def depends_on_its_noise_alone(subject: Subject) -> None:
    """Two rows with one key and as many tokens are given the same positions"""
    twins = Noise(noise().key[:1].expand(4))
    given = subject.built.draw(torch.ones(4, LENGTH, dtype=torch.bool), twins)
    agree(given, given[:1].expand(4, -1), "rows with the same noise")
