"""Under what a model is sampled, as JSON types: what a trace is of, and a certificate holds for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from dlmkit import devices, documents
from dlmkit.errors import UsageError
from dlmkit.exits.certificate import Certificate
from dlmkit.model import Model
from dlmkit.recipe.short import typed
from dlmkit.recipe.write import inline
from dlmkit.sampling.requests import Request
from dlmkit.training.environment import attention_used
from dlmkit.version import __version__

UNCONDITIONAL, CONTINUED = "unconditional", "beginnings of texts"
_FREE = {"count", "measured", "batch_size", "refresh"}
"""Keys of the recipe's ``sample`` that change no text, or that stand in the words of ``kept``."""


def conditions(model: Model, requests: Iterable[Request], steps: int | None) -> dict[str, Any]:
    """Everything that a text's path depends on but its seed, index and exit rule."""
    config, space = model.config, model.parts.space.prepared(model.parts.inference.dtype)
    sample = config.sample.model_dump(mode="json", exclude=_FREE)
    return {
        "model": model.digest(),
        **sample,
        "cache": config.sample.kept,
        "steps": sample["steps"] if steps is None else steps,
        **{kind: _plain(getattr(config, kind)) for kind in ("sampler", "grid")},
        "guidance": [_plain(part) for part in config.guidance],
        "statistic": [_plain(part) for part in config.statistic],
        "freeze": None if config.freeze is None else _plain(config.freeze),
        "length": config.length,
        "dtype": str(model.assembly.context.dtype).removeprefix("torch."),
        "device": devices.label(model.assembly.context.device),
        "kernel": [*attention_used(model.assembly.network), f"vocabulary {space.kernel}"],
        "prompts": prompts_digest(requests, config.length),
        "versions": {"dlmkit": __version__, "torch": str(torch.__version__)},
    }


def _plain(part: Any) -> dict[str, Any]:
    plain: dict[str, Any] = part.model_dump(mode="json", by_alias=True)
    return plain


def prompts_digest(requests: Iterable[Request], length: int) -> str:
    """The sha256 of the different patterns of given tokens; a word if nothing is given."""
    asked = sorted({json.dumps(request.tokens) for request in requests})
    if asked == [json.dumps((None,) * length)]:
        return UNCONDITIONAL
    return documents.digest(asked)


def names(overrides: Sequence[str], *keys: str) -> list[str]:
    """Those of ``overrides`` that are under one of the recipe's ``keys``."""
    key = lambda override: override.partition("=")[0].partition(".")[0].strip()  # noqa: E731
    return [override for override in overrides if key(override) in keys]


def certified(certificate: Certificate, overrides: Sequence[str]) -> str:
    """The override that puts the certificate's rule into a recipe.

    Raises UsageError if ``overrides`` name that part as well.
    """
    part = "exit rule" if certificate.key == "exit" else "sampler"
    for override in names(overrides, certificate.key):
        raise UsageError(f"{typed(override)}: the certificate names the {part}; drop one of them")
    return f"{certificate.key}={inline(certificate.rule)}"


def require(
    certificate: Certificate, model: Model, requests: Iterable[Request], steps: int | None
) -> None:
    """Raise UsageError, naming each difference, unless the certificate's conditions are these.

    A quota's are of texts like those that it was tested on, each continued from a beginning.
    """
    here = conditions(model, requests, steps)
    if certificate.key == "sampler" and here["prompts"] != UNCONDITIONAL:
        here["prompts"] = CONTINUED
    differences = documents.differences(certificate.conditions, here)
    unlike = [
        f"{d.key}: given {documents.word(d.after)}, expected {documents.word(d.before)}"
        for d in differences
    ]
    if unlike:
        raise UsageError(
            "the certificate does not hold here:\n  " + "\n  ".join(unlike) + "\nsample as it was "
            "calibrated, or record a trace of this setting and calibrate again"
        )
