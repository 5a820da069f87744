"""What the plugin `text` provides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlmkit import Component, hookimpl
from dlmkit_text import configs

api = 2

EXAMPLE = Path(__file__).parent / "example"
"""A folder like C4's with one shard: verses of Genesis."""
SMALL = {"tokenizer": {"kind": "characters"}, "validation": 0.2, "shuffle": 8}


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
            summary="local text files or folders of them",
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
            example={"path": str(EXAMPLE), **SMALL},
        ),
        Component(
            kind="data",
            name="hf",
            summary="any dataset of the Hugging Face hub, or a local one, by column",
            config=configs.Dataset,
            target="dlmkit_text.data:hf",
            example={"path": str(EXAMPLE / "genesis.json.gz"), **SMALL},
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
        Component(
            kind="metric",
            name="distinct",
            summary="share of distinct n-grams and their entropy, for several n",
            config=configs.Distinct,
            target="dlmkit_text.diversity:DistinctMetric",
        ),
        Component(
            kind="metric",
            name="ngram-distance",
            summary="total variation of n-grams from held-out text",
            config=configs.NgramDistance,
            target="dlmkit_text.diversity:NgramDistanceMetric",
        ),
    ]
