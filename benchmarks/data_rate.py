"""How fast text becomes rows on one core: MB of UTF-8 text a CPU second, and tokens.

    python benchmarks/make_c4_shards.py SHARDS --reviews
    python benchmarks/data_rate.py SHARDS --out data_rate.json

Times, in rounds that take turns, the stages that C4-format shards go through: `read` (decompress
and parse), `encode` (tokenise documents in memory), `stream` (the rows of streamed batches, reading
and encoding included), `prepare` (encode, and write rows to disk) and `rows` (batches of prepared
rows). The tokenizer's threads are held to one, and seconds are the whole process's CPU seconds, so
a figure is that of one core even on a busy machine. A byte-level tokenizer is trained on the text,
untimed, unless --tokenizer names a transformers folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ["RAYON_NUM_THREADS"] = "1"  # before the tokenizers' threads are counted

import numpy as np
import tokenizers
import torch

from dlmkit.core.tokenizer import Tokenizer
from dlmkit_text import prepared, vocabulary
from dlmkit_text.codec import Codec, encoded
from dlmkit_text.configs import TextTokens
from dlmkit_text.layout import Layout
from dlmkit_text.shards import JsonShards, Listed, json_shards
from dlmkit_text.stream import Deal, LaneStream

BATCH = 256


class Bench:
    """The stages over ``documents`` of ``shards``; each returns (tokens, CPU seconds)."""

    def __init__(
        self, shards: JsonShards, documents: Sequence[str], tokenizer: Tokenizer, length: int
    ) -> None:
        self.shards, self.documents, self.tokenizer = shards, documents, tokenizer
        self.codec, self.layout = Codec(tokenizer), Layout(length, False, False)
        self.tokens = sum(map(len, encoded(self.codec, documents)))
        self.megabytes = sum(len(text.encode()) for text in documents) / 1e6
        self.table = self._tables()

    def _tables(self) -> prepared.Table:
        splits = {"train": (Listed(self.documents, "text"), None)}
        return prepared.tables(splits, self.tokenizer, self.layout)["train"]

    @property
    def steps(self) -> range:
        """As many steps as the documents hold tokens for."""
        return range(max(1, self.tokens // (BATCH * self.layout.length)))

    def read(self) -> int:
        for _ in itertools.islice(self.shards.all(), len(self.documents)):
            pass
        return self.tokens

    def encode(self) -> int:
        return sum(map(len, encoded(self.codec, self.documents)))

    def stream(self) -> int:
        deal = Deal(self.shards, self.codec, self.layout, 0, min(8, BATCH), 1024)
        rows = LaneStream(deal, BATCH, self.tokenizer.pad_id)
        return sum(rows.read(step, torch.arange(BATCH)).ids.numel() for step in self.steps)

    def prepare(self) -> int:
        for path in self.table.folder.iterdir():
            path.unlink()
        return len(self._tables().ids)

    def rows(self) -> int:
        rows = prepared.PreparedStream(self.table, 0, BATCH)
        return sum(rows.read(step, torch.arange(BATCH)).ids.numel() for step in self.steps)


STAGES: dict[str, Callable[[Bench], int]] = {
    "read": Bench.read,
    "encode": Bench.encode,
    "stream": Bench.stream,
    "prepare": Bench.prepare,
    "rows": Bench.rows,
}


def measure(bench: Bench, rounds: int) -> dict[str, dict[str, float]]:
    """The median rate of each stage over rounds in which all take turns, and the spread."""
    rates: dict[str, list[float]] = {name: [] for name in STAGES}
    for _ in range(rounds):
        for name, stage in STAGES.items():
            began = time.process_time()
            tokens = stage(bench)
            rates[name].append(tokens / (time.process_time() - began))
    per_token = bench.megabytes / bench.tokens
    return {
        name: {
            "mb_per_second": statistics.median(stage_rates) * per_token,
            "tokens_per_second": statistics.median(stage_rates),
            "lowest": min(stage_rates),
            "highest": max(stage_rates),
        }
        for name, stage_rates in rates.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards", type=Path, help="a folder of C4-format shards")
    parser.add_argument("--megabytes", type=float, default=4.0, help="text in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--size", type=int, default=32_000, help="V of the tokenizer trained here")
    parser.add_argument("--tokenizer", help="a transformers tokenizer's folder instead")
    parser.add_argument("--out", type=Path, help="write the JSON here, too")
    asked = parser.parse_args()
    shards, _ = json_shards(asked.shards)
    documents = vocabulary.sample(shards.all(), int(asked.megabytes * 1e6))
    if asked.tokenizer:
        options = TextTokens(kind="pretrained", name=asked.tokenizer)
        tokenizer = vocabulary.pretrained(asked.tokenizer, options)
    else:
        tokenizer = vocabulary.byte_level(vocabulary.sample(shards.all(), 10**7), asked.size)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DLMKIT_CACHE"] = folder
        bench = Bench(shards, documents, tokenizer, asked.length)
        report = {
            "stages": measure(bench, asked.rounds),
            "megabytes": bench.megabytes,
            "tokens": bench.tokens,
            "vocabulary": tokenizer.vocab_size,
            "length": asked.length,
            "rounds": asked.rounds,
            "machine": platform.processor() or platform.machine(),
            "versions": {m.__name__: m.__version__ for m in (torch, tokenizers, np)},
        }
    text = json.dumps(report, indent=1)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
