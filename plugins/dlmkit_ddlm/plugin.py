"""What the plugin `ddlm` provides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlmkit import Component, hookimpl
from dlmkit.plugin import ShippedModel
from dlmkit_ddlm import configs

api = 2


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        Component(
            kind="masking",
            name="span",
            summary="runs of a fixed length are given, their share uniform",
            config=configs.Span,
            target="dlmkit_ddlm.masking:SpanMasking",
        )
    ]


@hookimpl
def register_models() -> Sequence[ShippedModel]:
    folder = Path(__file__).parent / "models" / "ddlm-mini"
    return [ShippedModel("ddlm-mini", "the King James Bible in 4,096 pieces of text", folder)]
