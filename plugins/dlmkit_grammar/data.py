"""The data component `grammar`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from tokenizers import models, normalizers, pre_tokenizers
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data, Stream
from dlmkit.core.objective import Batch
from dlmkit.core.tokenizer import FILE, PAD, UNKNOWN, Tokenizer
from dlmkit.errors import DataError, RecipeError, UsageError
from dlmkit_grammar.configs import GrammarRows
from dlmkit_grammar.grammar import Grammar
from dlmkit_grammar.lexicon import GRAMMAR
from dlmkit_grammar.rows import RowSampler, keyed

_SPECIAL = (PAD, UNKNOWN)
_TRAIN, _VALIDATION = 0x6A1, 0x6A2
_TEXTS = {"train": 10_000, "validation": 1_000}


def tokenizer(grammar: Grammar) -> Tokenizer:
    """One id a word, "." and "," among them; ``decode`` puts a space between all of them."""
    vocabulary = {word: index for index, word in enumerate((*_SPECIAL, *grammar.words))}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    backend.add_special_tokens(list(_SPECIAL))
    return Tokenizer(backend)


class GrammarStream(Stream):
    """Row ``slot`` of ``step`` is item ``step * batch_size + slot``, modulo ``rows`` if given."""

    def __init__(
        self, sampler: RowSampler, seed: int, batch_size: int, rows: int | None = None
    ) -> None:
        self.sampler = sampler
        self.seed = seed
        self.batch_size = batch_size
        self.rows = rows

    def read(self, step: int, slots: Tensor) -> Batch:
        items = step * self.batch_size + slots
        if self.rows is not None:
            items = items % self.rows
        return _batch(self.sampler, self.seed, items, _TRAIN)

    def state(self) -> Mapping[str, Any]:
        """Empty: a row follows from its step and slot."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore. Raises UsageError if there is."""
        if state:
            raise UsageError(f"this data keeps no state, but a checkpoint has {sorted(state)}")


class GrammarData(Data):
    """Endless rows of sentences. Each begins with a sentence; its last one may be cut."""

    def __init__(self, config: GrammarRows, context: BuildContext) -> None:
        longest = max(len(pattern.slots) for pattern in GRAMMAR.patterns)
        if context.length < longest:
            raise RecipeError(
                f"length is {context.length}, but the grammar's longest sentence has {longest} "
                f"words: set length to {longest} or more"
            )
        self.grammar = GRAMMAR
        self.tokenizer = _same(tokenizer(self.grammar), context.folder)
        self.length = context.length
        self.sampler = RowSampler(self.grammar, context.length)
        self.seed = context.seed
        self.rows = config.rows

    def stream(self, seed: int, batch_size: int) -> GrammarStream:
        return GrammarStream(self.sampler, seed, batch_size, self.rows)

    def validation(self, count: int) -> Batch:
        """Rows of their own, the same in every run whatever its seed."""
        return _batch(self.sampler, 0, torch.arange(count), _VALIDATION)

    def texts(self, split: str) -> Iterator[str]:
        """10,000 rows of the training stream or 1,000 of the validation rows, as text."""
        if split not in _TEXTS:
            raise DataError(f"there is no split {split!r}; there are {list(_TEXTS)}")
        domain = _TRAIN if split == "train" else _VALIDATION
        seed = self.seed if split == "train" else 0
        for start in range(0, _TEXTS[split], 500):
            items = torch.arange(start, start + 500)
            if split == "train" and self.rows is not None:
                items = items % self.rows
            for ids in _batch(self.sampler, seed, items, domain).ids.tolist():
                yield self.tokenizer.decode(ids)

    def describe(self) -> str:
        rows = "endless rows" if self.rows is None else f"{self.rows:,} rows for ever"
        return f"the toy grammar: {rows}; resumes exactly"


def _same(tokenizer: Tokenizer, folder: Path | None) -> Tokenizer:
    """``tokenizer``. Raises DataError if a run saved another one in ``folder``."""
    if folder is not None and (folder / FILE).is_file():
        saved = Tokenizer.load(folder).pieces()
        if saved != tokenizer.pieces():
            raise DataError(
                f"{folder / FILE} has {len(saved)} words that are not this grammar's "
                f"{tokenizer.vocab_size}: the run was trained on another version of it"
            )
    return tokenizer


def _batch(sampler: RowSampler, seed: int, items: Tensor, domain: int) -> Batch:
    words = sampler.rows(keyed(seed, items, domain))
    ids = torch.from_numpy(words + np.int64(len(_SPECIAL)))
    return Batch(ids, torch.ones(ids.shape, dtype=torch.bool))
