"""Conversations as rows of ids: which are given, which are learned, which text they are of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dlmkit.core.chat import Turn
from dlmkit.core.objective import Batch
from dlmkit.core.tokenizer import Tokenizer

_ANSWER = "\ue123"
"""Stands for an answer while what the template writes behind it is looked for."""


class Exchange(NamedTuple):
    """A question's ids, and those of its answer with what ends it."""

    question: list[int]
    answer: list[int]

    @property
    def size(self) -> int:
        return len(self.question) + len(self.answer)


def texts(turns: Sequence[Turn], tokenizer: Tokenizer, answers: str) -> Iterator[Exchange]:
    """A text for each answer in ``turns``, or for the last alone."""
    places = [place for place, turn in enumerate(turns) if turn.role == "assistant" and place]
    for place in places if answers == "each" else places[-1:]:
        before, answer = turns[:place], turns[place].content
        question = asked(before, tokenizer)
        yield Exchange(question, [*tokenizer.encode(answer), *ending(before, tokenizer)])


def asked(turns: Sequence[Turn], tokenizer: Tokenizer) -> list[int]:
    """The ids of ``turns`` up to where the answer begins: by the template, or line by line."""
    if tokenizer.template is not None:
        return tokenizer.conversation(turns)
    return [i for turn in turns for i in tokenizer.encode(f"{turn.content}\n")]


def ending(turns: Sequence[Turn], tokenizer: Tokenizer) -> list[int]:
    """What ends the answer to ``turns``: what the template writes behind it, up to its first
    special token; without one, the token that ends documents, if there is one."""
    backend = tokenizer.backend
    if tokenizer.template is not None:
        whole = tokenizer.template.text([*turns, Turn("assistant", _ANSWER)])
        behind = whole.rpartition(_ANSWER)[2]
        backend.encode_special_tokens = False
        try:
            ids = backend.encode(behind, add_special_tokens=False).ids
        finally:
            backend.encode_special_tokens = True
        special = {i for i, token in backend.get_added_tokens_decoder().items() if token.special}
        first = next((at for at, i in enumerate(ids) if i in special), None)
        if first is not None:
            return list(ids[: first + 1])
    return [] if tokenizer.separator_id is None else [tokenizer.separator_id]


class RowTable:
    """Rows of ``length``, each of which holds one text or several, all of them whole or cut."""

    def __init__(
        self,
        texts: Sequence[Exchange],
        length: int,
        tokenizer: Tokenizer,
        *,
        packed: bool = False,
        learned: bool = False,
    ) -> None:
        self.length, self.pad_id = length, tokenizer.pad_id
        self.learned, self.packed = learned, packed
        self.end_id = tokenizer.pad_id if tokenizer.separator_id is None else tokenizer.separator_id
        self.texts = list(texts)
        self.rows = (
            packing([text.size for text in texts], length)
            if packed
            else [[index] for index in range(len(texts))]
        )

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """These rows: ids, what is padding, what is given, and of which text each is."""
        shape = (len(rows), self.length)
        ids = torch.full(shape, self.end_id if self.learned else self.pad_id)
        attend = torch.full(shape, self.learned)
        given, segments = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.long)
        for place, row in enumerate(rows):
            start = 0
            for number, index in enumerate(self.rows[int(row)]):
                question, answer = self.texts[index]
                end = min(start + len(question) + len(answer), self.length)
                ids[place, start:end] = torch.tensor([*question, *answer])[: end - start]
                attend[place, start:end] = True
                given[place, start : start + len(question)] = True
                segments[place, start:] = number
                start = end
            segments[place, start:] = len(self.rows[int(row)]) if self.packed else 0
        return Batch(ids, attend, given, segments if self.packed else None)


def packing(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Which texts stand in which row: each in the first of the last 64 begun rows that has room."""
    rows: list[list[int]] = []
    room: list[int] = []
    for index, size in enumerate(sizes):
        first = max(0, len(rows) - 64)
        at = next((row for row in range(first, len(rows)) if room[row] >= size), None)
        if at is None:
            rows.append([])
            room.append(length)
            at = len(rows) - 1
        rows[at].append(index)
        room[at] -= size
    return rows
