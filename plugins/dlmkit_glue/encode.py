"""Texts as rows of ids: what a tokenizer does not know, what is cut, and batches by length."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

import torch

from dlmkit.core.data import Stream
from dlmkit.core.objective import Batch
from dlmkit.core.tokenizer import Tokenizer
from dlmkit.errors import UsageError
from dlmkit.types import Index
from dlmkit_glue.data import Example

_FEWEST = 4
_CHUNK = 32  # batches whose rows are sorted by length together


@dataclass
class Tally:
    """What encoding did: ``cut`` of ``rows`` lost ``dropped`` of all ``tokens``; ``lowered`` texts
    were read in lower case, and ``unknown`` ones hold characters that were left out."""

    rows: int = 0
    tokens: int = 0
    cut: int = 0
    dropped: int = 0
    lowered: int = 0
    unknown: int = 0


@dataclass
class Encoder:
    """Examples to ids: text, separator, second text, separator; at most ``length`` tokens.

    A tokenizer with a template of its own ([CLS] text [SEP]) is asked for it. For others, the
    separator is the token that ends documents, else a newline, else a space, whichever it knows
    first. A text with characters that the tokenizer does not know is read in
    lower case if that has fewer of them; those that are left are left out, as they are of the
    texts that small vocabularies are trained on. Where a row is too long, tokens are cut from
    the end of its longer text. ``tally`` counts all of it.
    """

    tokenizer: Tokenizer
    length: int
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        if self.length < _FEWEST:
            raise UsageError(
                f"the model's texts leave {self.length} tokens for a row; GLUE needs {_FEWEST} or "
                "more: train one of a greater length"
            )

    def __call__(self, example: Example) -> list[int]:
        """The ids of ``example``, at least one."""
        texts = [self._known(text) for text in example.texts]
        frame = self._frame(len(texts))
        room = self.length - (len(frame) - len(texts))
        surplus = max(0, sum(map(len, texts)) - room)
        self.tally.rows += 1
        self.tally.tokens += sum(map(len, texts))
        self.tally.cut += surplus > 0
        self.tally.dropped += surplus
        for _ in range(surplus):
            max(texts, key=len).pop()
        rest = iter(texts)
        return [token for mark in frame for token in (next(rest) if mark is None else [mark])]

    def spell(self, word: str) -> list[int]:
        """The ids of one word."""
        return self._known(word)

    def _frame(self, texts: int) -> list[int | None]:
        """The tokens around ``texts`` texts, for each of which stands a None."""
        backend = self.tokenizer.backend
        if not backend.num_special_tokens_to_add(texts == 2):
            return [None, *self._separator()] * texts
        encoded = backend.encode("a", "a" if texts == 2 else None, add_special_tokens=True)
        runs = groupby(zip(encoded.ids, encoded.sequence_ids, strict=True), key=itemgetter(1))
        return [
            mark
            for text, run in runs
            for mark in ([None] if text is not None else [token for token, _ in run])
        ]

    def _separator(self) -> list[int]:
        if self.tokenizer.separator_id is not None:
            return [self.tokenizer.separator_id]
        ids = next(filter(None, (self._raw(mark)[:1] for mark in ("\n", " "))), [])
        return ids or [self.tokenizer.pad_id]

    def _known(self, text: str) -> list[int]:
        ids, whole = self._raw(text), self._count(text)
        if len(ids) < whole:
            lower = text.lower()
            if self._count(lower) - len(self._raw(lower)) < whole - len(ids):
                ids, whole = self._raw(lower), self._count(lower)
                self.tally.lowered += 1
        self.tally.unknown += len(ids) < whole
        return ids

    def _count(self, text: str) -> int:
        return len(self.tokenizer.backend.encode(text, add_special_tokens=False).ids)

    def _raw(self, text: str) -> list[int]:
        """The ids of ``text`` without unknown ones."""
        ids: list[int] = self.tokenizer.backend.encode(text, add_special_tokens=False).ids
        return [token for token in ids if token != self.tokenizer.unknown_id]


def padded(rows: Sequence[Sequence[int]], pad: int) -> Batch:
    """``rows`` as one batch, as long as the longest."""
    size = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (size - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return Batch(ids, torch.arange(size) < lengths[:, None])


def by_length(rows: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Indices of ``rows`` in batches of ``size``, the shortest rows first."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for first in range(0, len(order), size):
        yield order[first : first + size]


class Epochs(Stream):
    """Every row once an epoch, in an order that the seed fixes, in batches of like length.

    Each epoch is shuffled, sorted by length within every 32 batches, and its batches are shuffled
    again. What does not fill a batch at the end of an epoch stands in one with the first rows of
    the next. With ``numbered``, a column before the tokens holds the row's index, unattended: what
    an objective finds its label by. Rows are not padded beyond the longest of their batch.
    """

    def __init__(
        self, rows: Sequence[Sequence[int]], size: int, pad: int, seed: int, numbered: bool
    ) -> None:
        self.rows, self.pad, self.seed, self.numbered = rows, pad, seed, numbered
        self.size = min(size, len(rows))
        self._epoch, self._batches = -1, [[0]]

    def steps(self, epochs: float) -> int:
        """How many batches hold every row in each of so many ``epochs``, one at least.

        The last one is filled up with rows of the epoch that would follow.
        """
        return max(1, math.ceil(epochs * len(self.rows) / self.size - 1e-9))

    def read(self, step: int, slots: Index) -> Batch:
        epoch = ((step + 1) * self.size - 1) // len(self.rows)  # the one that the batch ends in
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._shuffled(epoch)
        place = step - epoch * len(self.rows) // self.size
        chosen = [self._batches[place][slot] for slot in slots.tolist()]
        batch = padded([self.rows[i] for i in chosen], self.pad)
        if not self.numbered:
            return batch
        number = torch.tensor(chosen)[:, None]
        unseen = torch.zeros_like(number, dtype=torch.bool)
        return Batch(torch.cat((number, batch.ids), 1), torch.cat((unseen, batch.attend), 1))

    def _shuffled(self, epoch: int) -> list[list[int]]:
        """The batches that end in ``epoch``."""
        order, generator = self._order(epoch)
        over = -epoch * len(order) % self.size  # rows that fill the batch which the last one began
        begun = self._order(epoch - 1)[0][over - self.size :] if over else []
        whole = (len(order) - over) // self.size * self.size
        order, batches = order[over : over + whole], [[*begun, *order[:over]]] if over else []
        mixed = []
        for first in range(0, len(order), _CHUNK * self.size):
            chunk = order[first : first + _CHUNK * self.size]
            chunk.sort(key=lambda i: len(self.rows[i]))
            mixed += [chunk[i : i + self.size] for i in range(0, len(chunk), self.size)]
        return batches + [
            mixed[i] for i in torch.randperm(len(mixed), generator=generator).tolist()
        ]

    def _order(self, epoch: int) -> tuple[list[int], torch.Generator]:
        generator = torch.Generator().manual_seed(hash((self.seed, epoch)) % 2**63)
        return torch.randperm(len(self.rows), generator=generator).tolist(), generator

    def state(self) -> Mapping[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing: rows are a function of the step."""
