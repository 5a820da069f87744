"""A frozen model that another learns from, beside its weights and outside of them."""

from __future__ import annotations

from typing import Any

import torch

from dlmkit.core.objective import Objective


class Teacher:
    """The model that ``reference`` means, opened when it is first asked for.

    It is no module of the student's, so that no checkpoint, average or wrapper holds it, and
    copies of the student share it.
    """

    def __init__(self, reference: str) -> None:
        self.reference = reference
        self._opened: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        return self

    @property
    def assembly(self) -> Any:
        """Its parts, of the moving average's weights, on the CPU until :meth:`on` moves them.

        Raises what ``load_model`` does.
        """
        if self._opened is None:
            from dlmkit.model import load_model  # a model is built of parts like these

            with torch.random.fork_rng(devices=[]):
                self._opened = load_model(self.reference).assembly
            self.objective.eval().requires_grad_(False)
        return self._opened

    @property
    def objective(self) -> Objective:
        objective: Objective = self.assembly.objective
        return objective

    def on(self, device: torch.device) -> Objective:
        """Its space, schedule and denoiser, on ``device``."""
        return self.objective.to(device)
