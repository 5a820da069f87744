"""What the plugin `text` provides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlmkit import Component, hookimpl
from dlmkit_text import configs


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        Component(
            kind="data",
            name="kjv",
            summary="the King James Bible, public domain (extra: demo)",
            config=configs.KingJames,
            target="dlmkit_text.data:kjv",
        ),
        Component(
            kind="data",
            name="reviews",
            summary="25,000 film reviews from IMDb (extra: demo)",
            config=configs.Reviews,
            target="dlmkit_text.data:reviews",
        ),
        Component(
            kind="data",
            name="text",
            summary="local UTF-8 text files or folders of them",
            config=configs.TextFiles,
            target="dlmkit_text.data:text",
            example={"paths": [str(Path(__file__))], "document": "line"},
        ),
        Component(
            kind="data",
            name="c4",
            summary="C4, streamed from the Hugging Face hub or read from local shards",
            config=configs.C4,
            target="dlmkit_text.data:c4",
        ),
        Component(
            kind="data",
            name="hf",
            summary="any dataset of the Hugging Face hub, or a local one, by column",
            config=configs.Dataset,
            target="dlmkit_text.data:hf",
        ),
        Component(
            kind="metric",
            name="ngram-judge",
            summary="nats per character under a Kneser-Ney model of the training text",
            config=configs.NgramJudge,
            target="dlmkit_text.metrics:NgramJudgeMetric",
        ),
        Component(
            kind="metric",
            name="ngram-entropy",
            summary="entropy of 1- and 4-grams, distinct 4-grams, and the share of real words",
            config=configs.NgramEntropy,
            target="dlmkit_text.metrics:NgramEntropyMetric",
        ),
    ]
