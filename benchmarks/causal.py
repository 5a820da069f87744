"""A yardstick for `benchmarks/models.py`, as a plugin in one file: an autoregressive transformer of
`cdcd:transformer`'s own blocks, drawn token by token through `mdlm:unmasking` with `window: 1`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from dlmkit import Component, Config, hookimpl
from dlmkit.core.context import BuildContext
from dlmkit.core.network import Conditioning
from dlmkit.core.objective import Batch, Draws, LossParts, RecipeObjective
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import TokenSpace
from dlmkit.kernels.attention import Attention
from dlmkit.types import Embedded, Query
from dlmkit_cdcd import configs
from dlmkit_cdcd.network import Transformer
from dlmkit_mdlm.objective import MaskedDenoise

api = 2


class Nothing(Config):
    """No options."""


class Backward(Attention):
    """Softmax attention to the position itself and to those before it."""

    name = kernel = "causal"

    def forward(self, q: Tensor, k: Tensor, v: Tensor, attend: Tensor | None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class CausalTransformer(Transformer):
    """The same blocks; a position reads the tokens before it alone, and no level."""

    def __init__(self, config: configs.Transformer, context: BuildContext) -> None:
        super().__init__(config.model_copy(update={"level": False}), context)
        for block in self.blocks:
            block.attention = Backward()

    def forward(
        self, x: Embedded, level: Level, conditioning: Conditioning, previous: Tensor
    ) -> Query:
        return super().forward(F.pad(x[:, :-1], (0, 0, 1, 0)), level, conditioning, previous)


class NextToken(RecipeObjective):
    """Cross-entropy of every token, given those before it: the likelihood itself."""

    space: TokenSpace

    def __init__(self, config: Nothing, context: BuildContext) -> None:
        super().__init__(context)

    def denoise(self) -> MaskedDenoise:
        return MaskedDenoise(self.space, self.network)

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        noised = self.noised(batch, draws)
        logits = replace(noised, x=noised.x0).query().float().transpose(1, 2)
        return self.loss(F.cross_entropy(logits, batch.ids, reduction="none"), noised)


@hookimpl
def register_components() -> list[Component]:
    def part(kind: str, name: str, summary: str, config: type, **more: Any) -> Component:
        target = {"network": "CausalTransformer", "objective": "NextToken"}[kind]
        return Component(kind, name, summary, config, f"causal:{target}", **more)

    return [
        part("network", "transformer", "blocks that look back", configs.Transformer),
        part(
            "objective", "next-token", "the likelihood of every token", Nothing,
            provides=frozenset({"likelihood-bound"}), requires=frozenset({"masked"}),
        ),
    ]  # fmt: skip
