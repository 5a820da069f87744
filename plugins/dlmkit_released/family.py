"""What the families share that are a language model of transformers here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from dlmkit.core.importer import Case, Family
from dlmkit.core.objective import Objective
from dlmkit_hf.models import HfModel
from dlmkit_mdlm.space import TokenSpace

LONGEST = 4096
"""Positions of a row unless the recipe says otherwise, where a model could read more."""

Head = Literal["hf:decoder", "hf:masked-lm", "released:dit", "released:bailing"]


class TokenFamily(Family):
    """One whose network puts out logits for token ids and reads neither noise nor time."""

    def answers(self, objective: Objective, case: Case) -> Mapping[str, Tensor]:
        space, network, inputs = objective.space, objective.network, case.inputs
        assert isinstance(space, TokenSpace)
        assert isinstance(network, HfModel)
        seen = inputs.get("attention_mask")
        with torch.inference_mode():
            logits = network.logits(
                space.table(inputs["input_ids"]),
                None if seen is None else seen.bool(),
                inputs.get("position_ids"),
            )
            return {"logits": logits, "after": network.after(logits)}


def recipe(
    use: Head, network: Mapping[str, Any], *, dim: int, size: int, mask: int | None, longest: int
) -> dict[str, Any]:
    """The recipe of a masked model whose network is ``use``."""
    return {
        "length": min(longest, LONGEST),
        "schedule": {"use": "mdlm:log-linear"},
        "space": {"use": "mdlm:tokens", "with": {"dim": dim, "size": size, "mask": mask}},
        "network": {"use": use, "with": dict(network)},
        "objective": {"use": "mdlm:nelbo"},
        "sampler": {"use": "mdlm:unmasking"},
        "sample": {"steps": 64, "batch_size": 4},
    }
