"""A model that learns from another, whose space and schedule it has."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import nn

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.objective import RecipeObjective
from dlmkit.core.start import TextStart
from dlmkit.errors import RecipeError
from dlmkit_distil import plugin
from dlmkit_distil.teacher import Teacher


class Student(RecipeObjective, TextStart):
    """Has its teacher's space and schedule, whose tokens stay where they are, and begins with its
    network, unless the options say otherwise."""

    config: plugin.Taught

    def __init__(self, config: plugin.Taught, context: BuildContext) -> None:
        super().__init__(context)
        self.config = config
        self.teacher = None if config.teacher is None else Teacher(config.teacher, context.folder)
        if self.teacher is not None:
            for parameter in points(self.space):
                parameter.requires_grad_(False)

    def start_from(self, data: Data) -> None:
        """Begin with the teacher's space and schedule, and with its network. Modules that a network
        has beyond a teacher's of its base class stay as they are.

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
            beyond = dict(part.named_children()).keys() - dict(taken.named_children()).keys()
            if not isinstance(part, type(taken)) or shapes(part, beyond) != shapes(taken):
                self._refuse(kind, "options")
            part.load_state_dict(taken.state_dict(), strict=not beyond)
        ends = [(s.t_min, s.t_max) for s in (self.schedule, theirs.schedule)]
        if ends[0] != ends[1]:
            self._refuse("schedule", "t_min or t_max")

    def save(self, folder: Path) -> None:
        """Which model the teacher is."""
        if self.teacher is not None:
            self.teacher.save(folder)

    def _refuse(self, kind: str, what: str) -> None:
        assert self.teacher is not None
        raise RecipeError(
            f"objective.with.teacher: {self.teacher.reference} has another {kind} than this recipe "
            f"({what} differ); give {kind} as the teacher's recipe does"
        )


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


def shapes(module: nn.Module, beyond: Collection[str] = ()) -> dict[str, torch.Size]:
    """Of what the state of ``module`` holds, but for its modules ``beyond``."""
    state = module.state_dict().items()
    return {name: tensor.shape for name, tensor in state if name.split(".")[0] not in beyond}
