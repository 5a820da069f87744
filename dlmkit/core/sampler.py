"""Samplers: one step from a level to the next, and the base classes of Gaussian solvers.

In x / alpha, at the ratio s = sigma / alpha, every Gaussian diffusion is the variance-exploding
process dx / ds = (x - x0(x, s)) / s. A solver of it is a :class:`GaussianSampler`; one that
evaluates the denoiser twice a step is a :class:`TwoStageSampler`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.core.cache import Window
from dlmkit.core.context import Buildable
from dlmkit.core.denoise import Prediction
from dlmkit.core.schedule import Level
from dlmkit.noise import Noise
from dlmkit.types import Index, Mask, Rows

BoundDenoise = Callable[[Tensor, Level, Any], Prediction]
"""``denoise(x, level, previous)``, the rows' conditioning already bound."""


@dataclass(frozen=True)
class Step:
    """What is known of one step of every row, row-first: rows stand at places of their own.

    ``here`` and ``next`` are the levels ([B]) that a row steps from and to, ``ratio`` and
    ``next_ratio`` their sigma / alpha as (B, 1, ...), to broadcast against x. ``last`` marks the
    rows of which ``next`` is the clean level (alpha 1, sigma 0). ``noise`` is keyed by (seed, row,
    step); ``previous`` is the feedback of the row's last prediction; ``index`` counts its steps
    from 0, on a grid of ``steps`` points. ``generated`` (B, L) marks the positions that are neither
    given nor padding. ``all_last`` is true where the host knows that every row is at its last step:
    what such a step does not need can be left out without asking the device.
    """

    here: Level
    next: Level
    ratio: Tensor
    next_ratio: Tensor
    last: Rows
    noise: Noise
    previous: Any
    index: Index
    steps: int
    generated: Mask
    all_last: bool = False

    @staticmethod
    def between(
        x: Tensor,
        here: Level,
        there: Level,
        noise: Noise,
        previous: Any = (),
        index: int = 0,
        steps: int = 1,
    ) -> Step:
        """A step of ``x`` outside of the sampling loop, from ``here`` to ``there`` (each [B]),
        with nothing given and no padding."""
        last = there.sigma == 0
        return Step(
            here=here,
            next=there,
            ratio=per_row(here.ratio, x),
            next_ratio=per_row(there.ratio, x),
            last=last,
            noise=noise,
            previous=previous,
            index=torch.full_like(last, index, dtype=torch.int64),
            steps=steps,
            generated=torch.ones(x.shape[:2], dtype=torch.bool, device=x.device),
            all_last=bool(last.all()),
        )

    def starting(self, here: Level) -> Step:
        """This step from another level: x has been moved there, by fresh noise for instance."""
        return replace(self, here=here, ratio=per_row(here.ratio, self.ratio))


def per_row(values: Tensor, x: Tensor) -> Tensor:
    """``values`` [B] as (B, 1, ...) against ``x``; in its dtype, unless that is of tokens."""
    dtype = x.dtype if x.is_floating_point() else values.dtype
    return values.to(dtype).view(-1, *(1,) * (x.ndim - 1))


class Sampler(Buildable, ABC):
    """One step of a solver. Pure: what it must remember is its row-first state."""

    window: Window | None = None
    """What is written before anything behind it is; None: all at once."""

    gaps: bool = True
    """Whether something may be given behind what it writes."""

    accepts: str | None = None
    """The option by which it says itself which positions settle, so that `freeze` does not; None:
    it leaves that to `freeze`."""

    def init(self, x: Tensor) -> Any:
        """The state of rows that have taken no step yet: row-first, by default empty."""
        return ()

    @abstractmethod
    def step(
        self, denoise: BoundDenoise, x: Tensor, step: Step, state: Any
    ) -> tuple[Tensor, Prediction, Any]:
        """``x`` at ``step.here`` taken to ``step.next``.

        Returns the new x, the prediction at ``here`` (its ``feedback`` is the next
        ``step.previous``) and the new state. Rows of which ``next`` is clean end on the predicted
        x0. A sampler that needs the space, such as its corruption, takes it when it is built:
        ``context.part("space")``.
        """

    def ended(self, x: Tensor, generated: Mask, state: Any) -> Rows | None:
        """Rows of which nothing is left to step: they end here, whatever is left of their grid.

        ``generated`` marks the positions that are neither given nor padding. None, as by default:
        no row ends before its grid does.
        """
        return None

    def evaluations(self, last: Rows) -> Index:
        """Evaluations of the denoiser that a row's step needs; ``last`` if it ends clean."""
        return torch.ones_like(last, dtype=torch.int64)


class GaussianSampler(Sampler):
    """A solver with one evaluation per step: :meth:`move` says where x / alpha goes.

    The conversion to x / alpha and back, and the rows that end on the predicted x0, are done here.
    """

    def step(
        self, denoise: BoundDenoise, x: Tensor, step: Step, state: Any
    ) -> tuple[Tensor, Prediction, Any]:
        prediction = denoise(x, step.here, step.previous)
        x0 = prediction.x0_step
        moved, state = self.move(_over_alpha(x, step.here), x0, step, state)
        moved = rows.where(step.last, x0, moved)
        return _times_alpha(moved, step.next), prediction, state

    @abstractmethod
    def move(self, x: Tensor, x0: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        """(x / alpha at ``step.next_ratio``, the new state) of ``x``, x / alpha at ``step.ratio``.

        ``x0`` is the prediction at ``here``. What it gives for rows that end clean is not used.
        """


class TwoStageSampler(Sampler):
    """A solver with two evaluations per step, one where it ends clean.

    Euler's step leads to a second point, whose slope dx / ds and that of the start make the slope
    of the whole step. The next step is fed the second prediction.
    """

    def evaluations(self, last: Rows) -> Index:
        return 2 - last.long()

    @abstractmethod
    def second(self, step: Step) -> Level:
        """The level of the second point, [B]."""

    @abstractmethod
    def slope(self, first: Tensor, second: Tensor) -> Tensor:
        """dx / ds of the step, from those at ``step.here`` and at the second point."""

    def step(
        self, denoise: BoundDenoise, x: Tensor, step: Step, state: Any
    ) -> tuple[Tensor, Prediction, Any]:
        first = denoise(x, step.here, step.previous)
        x0 = first.x0_step
        if step.all_last:
            return _times_alpha(x0, step.next), first, state
        start, s = _over_alpha(x, step.here), step.ratio
        # rows that end clean are evaluated again where they stand, and the result is not used
        there = rows.where(step.last, step.here, self.second(step))
        s_there = per_row(there.ratio, x)
        middle = euler(start, x0, s, s_there)
        second = denoise(_times_alpha(middle, there), there, first.feedback)
        slope = self.slope((start - x0) / s, (middle - second.x0_step) / s_there)
        moved = rows.where(step.last, x0, start + (step.next_ratio - s) * slope)
        feedback = rows.where(step.last, first.feedback, second.feedback)
        return _times_alpha(moved, step.next), replace(first, feedback=feedback), state


def euler(x: Tensor, x0: Tensor, s: Tensor, s_next: Tensor) -> Tensor:
    """x0 + (s_next / s)(x - x0): x / alpha at ``s`` moved along its slope to ``s_next``."""
    return x0 + (s_next / s) * (x - x0)


def _over_alpha(x: Tensor, level: Level) -> Tensor:
    return x / level.like(x).alpha


def _times_alpha(x: Tensor, level: Level) -> Tensor:
    return x * level.like(x).alpha
