"""What the families share that are a language model of transformers here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from dlmkit import documents
from dlmkit.core.importer import Case, Conversion, Family, Place, Split
from dlmkit.core.objective import Objective
from dlmkit.core.tokens import TokenSpace
from dlmkit_hf.models import HfDecoder, HfModel
from dlmkit_released.decoding import Predict

LONGEST = 4096
"""Positions of a row unless the recipe says otherwise, where a model could read more."""

Attention = Literal["full", "causal"] | int | None
"""What a position sees, as of a :class:`~dlmkit.core.importer.Conversion`."""

Head = Literal["hf:decoder", "hf:masked-lm", "released:dit", "released:bailing"]


class TokenFamily(Family):
    """One whose network puts out logits for token ids and reads neither noise nor time."""

    def answers(self, objective: Objective, case: Case) -> Mapping[str, Tensor]:
        space, network, inputs = objective.space, objective.network, case.inputs
        assert isinstance(space, TokenSpace)
        assert isinstance(network, HfModel)
        ids, seen = inputs["input_ids"], inputs.get("attention_mask")
        seen = None if seen is None else seen.bool()
        if isinstance(network, HfDecoder) and seen is not None and not seen.any(dim=-1).all():
            # rows of padding alone: added to the scores, as their authors do, a mask of keys lets
            # them see everything alike; to transformers 5 they see nothing
            seen = seen if seen.ndim == 4 else seen[:, None, None].expand(-1, 1, ids.shape[1], -1)
        with torch.no_grad():
            logits = network.logits(space.table(ids), seen, inputs.get("position_ids"))
            return {"logits": logits, "after": network.after(logits)}


Ids = Annotated[list[int], Field(min_length=1)]


class RecordedRun(documents.Shape):
    """What is read of a recorded decoding run."""

    prompt_ids: list[Ids] = Field(min_length=1)
    final_ids: list[Ids] = Field(min_length=1)
    network_calls: int
    attention_mask: list[list[int]] | None = None
    steps: list[Any] | None = None

    @property
    def more(self) -> int:
        """Positions that are written behind the prompt."""
        return len(self.final_ids[0]) - len(self.prompt_ids[0])

    def start(self, mask: int, where: torch.device) -> tuple[Tensor, Tensor]:
        """The prompts with masks behind each, and which positions are no padding."""
        ids = torch.tensor(self.prompt_ids, device=where)
        known = torch.ones_like(ids) if self.attention_mask is None else None
        known = torch.tensor(self.attention_mask, device=where) if known is None else known
        ids = torch.cat((ids, ids.new_full((len(ids), self.more), mask)), dim=1)
        return ids, torch.cat((known, known.new_ones(len(ids), self.more)), dim=1).bool()


def predictor(objective: Objective, attend: Tensor, positions: Tensor | None = None) -> Predict:
    """The logits of rows that are padded by ``attend``, or of several copies of those rows."""
    space, network = objective.space, objective.network
    assert isinstance(space, TokenSpace)
    assert isinstance(network, HfModel)

    def predict(ids: Tensor) -> Tensor:
        seen = attend.repeat(len(ids) // len(attend), 1)
        with torch.no_grad():
            return network.after(network.logits(space.table(ids), seen, positions))

    return predict


def rope(
    theta: float, scaling: Mapping[str, Any] | None, parameters: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What transformers 5 calls ``rope_parameters``, and 4 writes as a base and a scaling, whose
    kind older ones call ``type``."""
    said = {"rope_theta": theta, **(scaling or {}), **(parameters or {})}
    return {"rope_type": said.pop("type", "default"), **said}


def masked(
    use: Head,
    network: Mapping[str, Any],
    tensors: Mapping[str, Place | Split],
    *,
    dim: int,
    size: int,
    mask: int | None,
    longest: int,
    attention: Attention,
    stop: Sequence[str] = (),
    **more: Any,
) -> Conversion:
    """A masked model whose network is ``use``, and whose texts end at ``stop``.

    One that attends by blocks is written block after block. ``more`` is of the conversion.
    """
    sampler: dict[str, Any] = {"use": "mdlm:unmasking"}
    if isinstance(attention, int):
        sampler["with"] = {"window": attention}
    recipe = {
        "length": min(longest, LONGEST),
        "schedule": {"use": "mdlm:log-linear"},
        "space": {"use": "mdlm:tokens", "with": {"dim": dim, "size": size, "mask": mask}},
        "network": {"use": use, "with": dict(network)},
        "objective": {"use": "mdlm:nelbo"},
        "sampler": sampler,
        "sample": {"steps": 64, "batch_size": 4, "stop": list(stop)},
    }
    return Conversion(recipe, tensors, size, mask, attention=attention, **more)
