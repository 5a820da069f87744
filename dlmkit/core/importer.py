"""Released models: what a family's folder holds, as a recipe and places for its tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from dlmkit.core.objective import Objective


class Slot(NamedTuple):
    """``[at]`` of the model's tensor ``name``: where experts are stacked, say."""

    name: str
    at: int


Place = str | Slot
"""Where a tensor goes: a name in the objective's ``state_dict()``, or a part of that tensor."""


@dataclass(frozen=True)
class Split:
    """A tensor of the file that becomes several of the model.

    ``parts`` is also called with a tensor without memory, to learn the shapes.
    """

    places: tuple[Place, ...]
    parts: Callable[[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Conversion:
    """How one folder of a family becomes a model here.

    ``recipe`` is what a recipe file would say of ``schedule``, ``space``, ``network``,
    ``objective``, ``length`` and how to sample; what it leaves out (``data``, ``train``, ...) is
    filled in. ``size`` is the number of rows of the token table and ``mask`` the mask's id, None
    for a model without one or where only a tokenizer, which is not there, knows it.

    ``tensors`` says of every tensor of the file where it goes. ``copies`` may be in the file too,
    and then must equal, bit for bit, the tensor that they name; ``unused`` may be there, and is
    not needed; ``computed`` may be there, and must be close to the values given, which this
    network computes itself. ``beside`` names further files that must be there, with what their
    tensors' names begin with in ``tensors``, and ``instead`` in the same way those of a model
    that has no ``model.safetensors``. ``attention`` says what a position sees: all (``full``),
    itself and what comes before (``causal``), or its own block of so many positions and those
    before; None: it is not said, and not checked.
    """

    recipe: Mapping[str, Any]
    tensors: Mapping[str, Place | Split]
    size: int
    mask: int | None
    copies: Mapping[str, str] = field(default_factory=dict)
    unused: frozenset[str] = frozenset()
    computed: Mapping[str, Tensor] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)
    attention: Literal["full", "causal"] | int | None = None


@dataclass(frozen=True)
class Case:
    """One comparison with a reference: its ``name``, the ``inputs``, usually ``input_ids``,
    ``attention_mask`` and ``sigma``, and the ``settings`` that hold for all of a folder's cases,
    such as the steps of a decoding run."""

    name: str
    inputs: Mapping[str, Tensor]
    settings: Mapping[str, Any] = field(default_factory=dict)


class Taken(NamedTuple):
    """What one step of decoding settled in a row: positions, their tokens, and how confident the
    rule was that chose them; None: random numbers did."""

    step: int
    row: int
    positions: list[int]
    tokens: list[int]
    confidence: list[float] | None


@dataclass(frozen=True)
class Decoded:
    """A decoding run: the final ``ids`` (B, L), the network's ``calls``, and every step."""

    ids: Tensor
    calls: int
    taken: Sequence[Taken]


class Family(ABC):
    """An importer at work: the ``target`` of a :class:`dlmkit.plugin.Importer`."""

    tolerance: float = 2e-5
    """Largest difference from a reference's outputs in fp32 on the CPU."""

    @abstractmethod
    def convert(self, config: Mapping[str, Any], tokens: Mapping[str, int]) -> Conversion:
        """The model that ``config``, the folder's ``config.json``, means.

        ``tokens`` are the ids of the tokenizer's special tokens; empty where the folder has no
        tokenizer. Raises ValueError, naming the key, for what this family does not support.
        """

    @abstractmethod
    def answers(self, objective: Objective, case: Case) -> Mapping[str, Tensor]:
        """What the model makes of a reference's inputs, under the reference's own names.

        Usual answers are ``logits`` and ``after``: what the family makes of them.
        """

    def decoded(self, objective: Objective, run: Mapping[str, Any]) -> Decoded | None:
        """A reference's decoding ``run`` again, by its ``settings`` from its ``prompt_ids``; None
        where this family does not decode so here."""
        return None

    def unpickled(self, content: Any) -> Mapping[str, Tensor]:
        """The tensors of what a pickle of this family held: a state dict, or one under that key.

        Raises ValueError if there are none, or a moving average of them too (``ema``): which was
        published, the raw weights or the average, a pickle does not say.
        """
        if isinstance(content, dict) and isinstance(content.get("ema"), dict):
            raise ValueError(
                "it holds weights and their moving average (ema), and most publish the average: "
                "put the one that is meant into a state dict of its own"
            )
        if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
            content = content["state_dict"]
        if not (isinstance(content, dict) and all(isinstance(v, Tensor) for v in content.values())):
            raise ValueError("it holds no mapping from names to tensors")
        return {str(name): value for name, value in content.items()}


def mask_of(config: Mapping[str, Any], tokens: Mapping[str, int], *names: str) -> int | None:
    """The mask's id: ``mask_token_id`` of the config, or that of the first of ``names`` there is.

    None if there is no tokenizer to ask; raises ValueError if it has none of them.
    """
    given = config.get("mask_token_id")
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    ids = [tokens[name] for name in names if name in tokens]
    if tokens and not ids:
        raise ValueError(f"the tokenizer has no mask token: expected {' or '.join(names)}")
    return ids[0] if ids else None


def ends_of(config: Mapping[str, Any], tokens: Mapping[str, int], *names: str) -> list[str]:
    """The tokens that end a text, for ``sample.stop``: those of ``names`` there are, and those
    that the config's ``eos_token_id``, a number or several, means."""
    given = config.get("eos_token_id")
    ids = given if isinstance(given, list) else [given]
    return [name for name, index in tokens.items() if name in names or index in ids]


def shifted(logits: Tensor) -> Tensor:
    """Logits (B, L, V) moved right by one: position i gets those of i - 1, position 0 keeps its
    own. What models that learned to predict the next token mean (Dream, 2508.15487)."""
    return torch.cat((logits[:, :1], logits[:, :-1]), dim=1)
