"""DUO's discrete consistency distillation (2506.10892, section 4.2 and algorithm 1)."""

from __future__ import annotations

from dataclasses import replace

import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.core.objective import Batch, Draws, LossParts
from dlmkit.errors import RecipeError
from dlmkit_distil import plugin
from dlmkit_distil.student import Student
from dlmkit_uniform.curriculum import Softened
from dlmkit_uniform.objective import UniformDenoise
from dlmkit_uniform.space import UniformSpace

PATH = 3
"""What the Gaussian noise of a path is forked by."""


class DiscreteConsistency(Student):
    """The student says of x_t what its teacher says of x_s, one of ``steps`` steps further down.

    Both are argmaxes of one Gaussian variable's way from the token to noise (equation 22), so that
    the tokens of all levels are known without a solver. The loss is KL(student || teacher) in nats
    a position (equation 23), of what either network says of a token by all others: it chooses
    among what the teacher says of the many x_s behind an x_t. The other order would learn their
    mean.

    DUO doubles a step after every round and makes the student the next teacher: here a round is a
    run, whose teacher is the last one's model.
    """

    space: UniformSpace

    def __init__(self, config: plugin.Taught, context: BuildContext) -> None:
        super().__init__(config, context)
        self.softened = Softened(self.space.vocab_size)

    def start_from(self, data: Data) -> None:
        """Begin as the teacher. Raises RecipeError where there is none, or it is another model."""
        where = "objective.with.teacher"
        if self.teacher is None:
            raise RecipeError(f"{where}: distil:discrete-consistency needs a teacher; name a model")
        if not isinstance(self.teacher.objective.denoise(), UniformDenoise):
            raise RecipeError(
                f"{where}: {self.teacher.reference} does not predict tokens; name a model that was "
                "trained by uniform:udlm or distil:discrete-consistency"
            )
        super().start_from(data)

    def denoise(self) -> UniformDenoise:
        return UniformDenoise(self.space, self.network)

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        noised, noise = self.noised(batch, draws), draws.noise.fork(PATH)
        u = (draws.u - 1.0 / self.config.steps).clamp(min=0.0)
        lower = self.schedule.level(self.schedule.quantile(u))
        x, below = (
            self.softened.latent(batch.ids, level, noise).argmax(dim=-1)
            for level in (noised.level, lower)
        )
        noised = replace(noised, x=x)
        said = noised.query().float().log_softmax(dim=-1)
        with torch.no_grad():
            denoise = (self if self.teacher is None else self.teacher.on(x.device)).denoise()
            assert isinstance(denoise, UniformDenoise)
            asked = replace(noised, x=below, level=lower, denoise=denoise)
            target = asked.query().float().log_softmax(dim=-1)
        parts = self.loss((said.exp() * (said - target)).sum(dim=-1), noised)
        return replace(parts, unconditional=torch.zeros_like(parts.unconditional))
