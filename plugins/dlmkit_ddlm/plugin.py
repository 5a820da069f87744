"""What the plugin `ddlm` provides."""

from __future__ import annotations

from collections.abc import Sequence

from dlmkit import Component, hookimpl
from dlmkit_ddlm import configs


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
