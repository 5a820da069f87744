"""Consistency distillation and training of continuous models (2303.01469)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction, WithoutFeedback
from dlmkit.core.embedding import GaussianCorruption
from dlmkit.core.objective import Batch, Draws, LossParts, Noised
from dlmkit.core.sampler import Sampler, Step
from dlmkit.errors import RecipeError
from dlmkit.types import Probabilities
from dlmkit_distil import plugin
from dlmkit_distil.student import Student

SOLVER = 3
"""What the noise of the teacher's step is forked by."""


class Continuous(Student):
    """A student of a path through noise, which feeds back no prediction."""

    config: plugin.Continuous

    def denoise(self) -> WithoutFeedback:
        return WithoutFeedback(self.space, self.network)

    def divergence(self, noised: Noised, target: Probabilities) -> LossParts:
        """KL(target || student) in nats per position, which no schedule learns from."""
        said = self.space.logits(noised.query()).float().log_softmax(dim=-1)
        parts = self.loss(F.kl_div(said, target.to(said.dtype), reduction="none").sum(-1), noised)
        return replace(parts, unconditional=torch.zeros_like(parts.unconditional))

    def towards(self, batch: Batch, noised: Noised) -> tuple[Prediction, Probabilities]:
        """What the path leads to from here, and its tokens: by the teacher, or else the text."""
        if self.teacher is None:
            x0 = noised.x0
            tokens = F.one_hot(batch.ids, self.space.vocab_size)
            return Prediction(x0, x0, x0[..., 0], x0, ()), tokens
        theirs = self.teacher.on(noised.x.device)
        denoise = theirs.denoise()
        previous: Any = denoise.start(noised.x)
        for _ in range(self.config.passes):
            said = denoise(noised.x, noised.level, previous, noised.conditioning)
            previous = said.feedback
        return said, theirs.space.logits(said.query).softmax(dim=-1)


class Consistency(Continuous):
    """The student says at x what it says one step of the teacher further down, without gradient.

    KL(target || student) in nats per position (equations 7 and 10, with tokens in place of
    points). At the lowest of ``steps`` levels the target is what the teacher says there: a boundary
    in place of c_skip, so that by induction every point of a path is given the tokens of its end.
    Target and student have the same weights (2310.14189, section 3.2).

    Without a teacher, the step goes straight to the text's own embedding (consistency training,
    algorithm 3), and the lowest target is the text.
    """

    config: plugin.Consistency

    def __init__(self, config: plugin.Consistency, context: BuildContext) -> None:
        super().__init__(config, context)
        self.solver: Sampler = context.build("sampler", config.solver)
        gaussian = isinstance(self.space.corruption, GaussianCorruption)
        if self.teacher is None and not gaussian:
            raise RecipeError(
                "objective.with.teacher: without a teacher, distil:consistency needs a space with "
                "Gaussian noise; name a teacher"
            )

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        noised = self.noised(batch, draws)
        return self.divergence(noised, self.target(batch, draws, noised))

    @torch.no_grad()
    def target(self, batch: Batch, draws: Draws, noised: Noised) -> Probabilities:
        """What the student is to say of ``noised``."""
        u = draws.u - 1.0 / self.config.steps
        lower = self.schedule.level(self.schedule.quantile(u.clamp(min=0.0)))
        end, lowest = self.towards(batch, noised)
        step = Step.between(noised.x, noised.level, lower, draws.noise.fork(SOLVER))
        x, _, _ = self.solver.step(lambda *_: end, noised.x, step, self.solver.init(noised.x))
        denoise = self.denoise()
        query = denoise.query(x, lower, denoise.start(x), noised.conditioning)
        further = self.space.logits(query).float().softmax(dim=-1)
        return torch.where((u < 0.0)[:, None, None], lowest.to(further.dtype), further)
