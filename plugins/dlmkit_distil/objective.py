"""Consistency distillation and training of continuous models (2303.01469)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.core.denoise import Prediction, WithoutFeedback
from dlmkit.core.embedding import EmbeddingSpace, GaussianCorruption
from dlmkit.core.objective import Batch, Draws, LossParts, Noised, RecipeObjective
from dlmkit.core.sampler import Sampler, Step
from dlmkit.core.start import TextStart
from dlmkit.errors import RecipeError
from dlmkit.types import Probabilities
from dlmkit_distil import plugin
from dlmkit_distil.teacher import Teacher

SOLVER = 3
"""What the noise of the teacher's step is forked by."""


class Consistency(RecipeObjective, TextStart):
    """The student says at x what it says one step of the teacher further down, without gradient.

    KL(target || student) in nats a position (equations 7 and 10, with tokens in place of
    points). At the lowest of ``steps`` levels the target is what the teacher says there: a boundary
    in place of c_skip, so that by induction every point of a path is given the tokens of its end.
    Target and student have the same weights (2310.14189, section 3.2).

    The student has its teacher's space and schedule, whose tokens stay where they are. It feeds
    back no prediction. Without a teacher, the step goes straight from the text's own embedding
    (consistency training, algorithm 3), and the lowest target is the text.
    """

    def __init__(self, config: plugin.Consistency, context: BuildContext) -> None:
        super().__init__(context)
        self.config = config
        self.solver: Sampler = context.build("sampler", config.solver)
        self.teacher = None if config.teacher is None else Teacher(config.teacher)
        if self.teacher is not None:
            for parameter in points(self.space):
                parameter.requires_grad_(False)
        elif not isinstance(self.space.corruption, GaussianCorruption):
            raise RecipeError(
                "objective.with.teacher: without a teacher, distil:consistency needs a space with "
                "Gaussian noise; name a teacher"
            )

    def start_from(self, data: Data) -> None:
        """Begin with the teacher's space and schedule, and with its network.

        Raises RecipeError, which names the part, where this recipe's is another.
        """
        if self.teacher is None:
            return
        theirs = self.teacher.objective
        mine, other = data.tokenizer, self.teacher.assembly.tokenizer
        if mine.backend.get_vocab() != other.backend.get_vocab():
            self._refuse("data", "tokens")
        kinds = ("space", "schedule", "network")
        for kind in kinds if self.config.start == "teacher" else kinds[:2]:
            part, taken = getattr(self, kind), getattr(theirs, kind)
            if type(part) is not type(taken) or shapes(part) != shapes(taken):
                self._refuse(kind, "options")
            part.load_state_dict(taken.state_dict())
        ends = [(s.t_min, s.t_max) for s in (self.schedule, theirs.schedule)]
        if ends[0] != ends[1]:
            self._refuse("schedule", "t_min or t_max")

    def _refuse(self, kind: str, what: str) -> None:
        raise RecipeError(
            f"objective.with.teacher: {self.config.teacher} has another {kind} than this recipe "
            f"({what} differ); give {kind} as the teacher's recipe does"
        )

    def denoise(self) -> WithoutFeedback:
        return WithoutFeedback(self.space, self.network)

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        noised = self.noised(batch, draws)
        target = self.target(batch, draws, noised)
        said = self.space.logits(noised.query()).float().log_softmax(dim=-1)
        parts = self.loss(F.kl_div(said, target.to(said.dtype), reduction="none").sum(-1), noised)
        return replace(parts, unconditional=torch.zeros_like(parts.unconditional))

    @torch.no_grad()
    def target(self, batch: Batch, draws: Draws, noised: Noised) -> Probabilities:
        """What the student is to say of ``noised``."""
        u = draws.u - 1.0 / self.config.steps
        lower = self.schedule.level(self.schedule.quantile(u.clamp(min=0.0)))
        end, lowest = self._towards(batch, noised)
        step = Step.between(noised.x, noised.level, lower, draws.noise.fork(SOLVER))
        x, _, _ = self.solver.step(lambda *_: end, noised.x, step, self.solver.init(noised.x))
        denoise = self.denoise()
        query = denoise.query(x, lower, denoise.start(x), noised.conditioning)
        further = self.space.logits(query).float().softmax(dim=-1)
        return torch.where((u < 0.0)[:, None, None], lowest.to(further.dtype), further)

    def _towards(self, batch: Batch, noised: Noised) -> tuple[Prediction, Probabilities]:
        """What the path leads to from here, and its tokens."""
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


def points(space: EmbeddingSpace) -> list[nn.Parameter]:
    """The parameters that say where tokens are."""
    x0 = space.embed(torch.arange(space.vocab_size, device=_device(space))[None])
    parameters = [parameter for parameter in space.parameters() if parameter.requires_grad]
    if not x0.requires_grad:
        return []
    gradients = torch.autograd.grad(x0.sum(), parameters, allow_unused=True)
    return [p for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None]


def _device(space: EmbeddingSpace) -> torch.device | None:
    return next((tensor.device for tensor in space.parameters()), None)


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    """Of what the state of ``module`` holds."""
    return {name: tensor.shape for name, tensor in module.state_dict().items()}
