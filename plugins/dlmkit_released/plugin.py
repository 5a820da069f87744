"""What the plugin `released` provides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlmkit import hookimpl
from dlmkit.plugin import HubModel, Importer

api = 1

GOLDEN = "logits of the authors' code on made-up weights, fp32 on the CPU, within 2e-5"


def _type(*names: str) -> Any:
    def recognises(config: Mapping[str, Any]) -> bool:
        return config.get("model_type") in names

    return recognises


@hookimpl
def register_importers() -> Sequence[Importer]:
    return [
        Importer(
            name="llada",
            summary="LLaDA 1 and 1.5: Llama that sees all positions",
            recognises=_type("llada"),
            target="dlmkit_released.llada:Llada",
            models=(
                HubModel("GSAI-ML/LLaDA-8B-Base", 8_015_581_184),
                HubModel("GSAI-ML/LLaDA-8B-Instruct", 8_015_581_184),
                HubModel("GSAI-ML/LLaDA-1.5", 8_015_581_184),
            ),
            mask="126336, mask_token_id of its config",
            verified=GOLDEN,
        ),
    ]
