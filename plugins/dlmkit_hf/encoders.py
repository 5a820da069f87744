"""Which models are encoders: by their keys alone, without importing transformers, and by trial."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlmkit.registry.declarations import did_you_mean

if TYPE_CHECKING:
    from torch import nn

_TABLE = r"^MODEL_FOR_{}_LM_MAPPING_NAMES = OrderedDict\(\n(.*?)^\)"
DECODER = (
    "decoders (gpt2 and its kin) read left to right, and here all positions have to be seen from "
    "each; hf:decoder takes decoders, with a space of tokens"
)

Head = Literal["masked", "causal"]


def check(keys: Mapping[str, Any]) -> None:
    """Raise ValueError unless the keys of a ``config.json`` can be those of an encoder."""
    if not isinstance(keys.get("model_type"), str):
        raise ValueError("architecture needs model_type, such as bert")
    _finite(keys, "architecture")
    if keys.get("is_decoder"):
        raise ValueError(f"architecture.is_decoder: leave it out: {DECODER}")
    known, given = masked(), keys["model_type"]
    if known and given not in known:
        raise ValueError(
            f"architecture.model_type: {given[:40]!r} is no encoder that transformers knows"
            f"{did_you_mean(given, known) or ', such as bert, roberta or modernbert'}; {DECODER}"
        )


def check_kind(keys: Mapping[str, Any], head: Head) -> None:
    """Raise ValueError unless the keys of a ``config.json`` can be those of a model with ``head``
    (causal: a decoder)."""
    given = keys.get("model_type")
    if not isinstance(given, str):
        raise ValueError("architecture needs model_type, such as llama or qwen3")
    _finite(keys, "architecture")
    known = masked(head)
    if known and given not in known:
        kind = {"causal": "decoder", "masked": "masked language model"}[head]
        raise ValueError(
            f"architecture.model_type: {given[:40]!r} is no {kind} that transformers knows"
            f"{did_you_mean(given, known)}"
        )


def _finite(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number, got {value}")
    if isinstance(value, Mapping | list):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            _finite(item, f"{where}.{key}")


@functools.cache
def masked(head: Head = "masked") -> frozenset[str]:
    """The model types that transformers has a masked-language (or causal) head for: its own
    table, read.

    Importing it would import torch. Empty where the table is not found: then building says it.
    """
    spec = find_spec("transformers")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "models" / "auto" / "modeling_auto.py"
        if path.is_file():
            pattern = re.compile(_TABLE.format(head.upper()), re.M | re.S)
            table = pattern.search(path.read_text(encoding="utf-8"))
            return frozenset(re.findall(r'^\s*\("([\w-]+)",', table[1] if table else "", re.M))
    return frozenset()


def sees_all(body: nn.Module, width: int, positions: int) -> bool:
    """Whether the first position of ``body``'s answer depends on the last of its input.

    ``body`` reads ``inputs_embeds`` (1, positions, width). Nothing of the generators is used up.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    weight = next(body.parameters())
    both = torch.randn(2, 1, positions, width, generator=generator).to(weight)
    both[1, :, :-1] = both[0, :, :-1]
    attend = torch.ones(1, positions, dtype=torch.long, device=weight.device)
    training = body.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            a, b = (
                body.eval()(inputs_embeds=h, attention_mask=attend).last_hidden_state for h in both
            )
    finally:
        body.train(training)
    return not torch.equal(a[:, 0], b[:, 0])
