"""What the plugin `masked` provides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlmkit import Component, Config, hookimpl
from dlmkit_masked import configs

api = 2

MASKED = frozenset({"masked"})


def _component(
    kind: str,
    name: str,
    summary: str,
    config: type[Config],
    target: str,
    example: Mapping[str, Any] | None = None,
) -> Component:
    return Component(
        kind,
        name,
        summary,
        config,
        f"dlmkit_masked.{target}",
        requires=MASKED,
        example=example or {},
    )


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        _component(
            "sampler",
            "decoder",
            "masked tokens are uncovered by an order, a quota, a draw and a remasking",
            configs.Decoder,
            "decoder:Decoder",
            {"order": {"use": "masked:confidence"}},
        ),
        _component("order", "random", "at random", configs.Nothing, "orders:Random"),
        _component(
            "order", "left-to-right", "the first of the row", configs.Nothing, "orders:LeftToRight"
        ),
        _component(
            "order",
            "confidence",
            "by the probability of the likeliest token (LLaDA)",
            configs.Nothing,
            "orders:ByConfidence",
        ),
        _component(
            "order",
            "margin",
            "by the lead of the likeliest token over the runner-up",
            configs.Nothing,
            "orders:ByMargin",
        ),
        _component(
            "order", "entropy", "by the lowest entropy (Dream)", configs.Nothing, "orders:ByEntropy"
        ),
        _component(
            "order",
            "corpus",
            "by confidence in what is rare in the training text (PC-Sampler)",
            configs.Corpus,
            "orders:Corpus",
        ),
        _component(
            "quota",
            "rule",
            "all at which an exit rule holds, as freeze is of continuous models",
            configs.ByRule,
            "quotas:ByRule",
        ),
        _component(
            "quota",
            "schedule",
            "a share of what is masked, by the step",
            configs.Schedule,
            "quotas:Schedule",
        ),
        _component(
            "quota",
            "tokens",
            "the same number at every step",
            configs.TokensPerStep,
            "quotas:TokensPerStep",
        ),
        _component(
            "quota",
            "first-hitting",
            "one a step, at the time the process would write it",
            configs.Nothing,
            "quotas:FirstHitting",
        ),
        _component(
            "quota",
            "threshold",
            "all whose likeliest token is probable enough (Fast-dLLM)",
            configs.Threshold,
            "quotas:Threshold",
        ),
        _component(
            "quota",
            "factor",
            "as many as are probable enough together (Fast-dLLM)",
            configs.Factor,
            "quotas:Factor",
        ),
        _component(
            "quota",
            "entropy-bound",
            "as many as their entropies allow (EB-Sampler)",
            configs.EntropyBound,
            "quotas:EntropyBound",
        ),
        _component(
            "quota",
            "stable",
            "probable ones whose prediction no longer moves (KLASS)",
            configs.Stable,
            "quotas:Stable",
        ),
        _component("remask", "remdm", "by chance, as ReMDM does", configs.Remdm, "remasks:Remdm"),
        _component(
            "remask",
            "planned",
            "written and open positions compete (P2)",
            configs.Nothing,
            "remasks:Planned",
        ),
        _component(
            "remask",
            "doubted",
            "those the model would not write again (token to mask)",
            configs.Doubted,
            "remasks:Doubted",
        ),
    ]
